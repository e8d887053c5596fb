"""Optimizer step of a trainer with gradients that the user computed."""

from typing import Any

from numbanet.caller import warn_caller
from numbanet.engine import Batch
from numbanet.loss_value import SKIPPED, Loss
from numbanet.step_result import Result


class OptimizerStep:
    """Mix-in of Trainer with its optimizer step."""

    __slots__ = ()

    def optimizer_step(self: Any) -> Loss:
        """Make a step of the optimizer with the model's present gradients.

        These are what `backward`, `double_backward` and those of `derivatives` left there; they
        stay, and with several ranks they are added up for the step. It is skipped, as
        `training_step`'s is, where one is infinite or NaN.

        Returns:
            A loss without targets, 0; reading it says whether the step was skipped.

        Raises:
            ValueError: ranks make different calls, or their batches are divided into pieces, whose
                gradients alone are added up in pairs.
            RankError: another rank ended, or did not come in time.
            FloatingPointError: a gradient is not finite and on_nonfinite is "raise".
        """
        network, target, pieces = self.network, self.network.target, self.comm.pieces
        if pieces is not None:
            raise ValueError(
                f"optimizer_step: with pieces={pieces} only training_step adds gradients up; leave "
                "pieces out of numbanet.distributed.init"
            )
        inputs, dl_dy = (target.empty(0, n) for n in (network.n_input_dims, network.n_output_dims))
        batch = Batch(inputs, external_dl_dy=dl_dy)
        batch.n_rows = self._replicas.begin_step(self, 0, True, "accumulate")
        result = self._training.step(
            *(batch, network.parameters.current(), None, self.optimizer),
            *(network.target_gradients, None),
            overwrite=False,
            run_optimizer=True,
        )
        return self._loss_of(result, False, True)

    def _loss_of(self: Any, result: Result, has_targets: bool, is_external: bool) -> Loss:
        """Loss of a step; what can be said of it is said now."""
        is_known = result.is_known or self.on_nonfinite == "raise"
        if is_known:
            self._tell(result)
        return Loss(result, self._grid_range, not is_known, has_targets, is_external)

    def _tell(self: Any, result: Result) -> None:
        """Report that a step was skipped, if so; a step under way is waited for."""
        if result.read().skipped:
            if self.on_nonfinite == "raise":
                raise FloatingPointError(f"{SKIPPED}, the parameters are as they were")
            warn_caller(SKIPPED, RuntimeWarning)
        self._grid_range.check()
