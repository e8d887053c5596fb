"""Trainer: a model, a loss and an optimizer, and the steps that join them."""

from collections.abc import Mapping
from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.communicator import Communicator, communicator_of
from numbanet.engine import Batch
from numbanet.grid_range import GridRange
from numbanet.learning_rates import LearningRates
from numbanet.loss_value import Loss
from numbanet.losses.base import AbstractLoss
from numbanet.model import AbstractModel
from numbanet.model_arguments import (
    check_bool,
    check_integer,
    check_options_of_step,
    check_sigma,
)
from numbanet.optimizer_step import OptimizerStep
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.perturbation import Perturbation
from numbanet.replicas import Replicas
from numbanet.shown import shown
from numbanet.summary import summary_of
from numbanet.target import AbstractTraining
from numbanet.trainer_names import OldTrainerNames
from numbanet.trainer_settings import (
    changed,
    check_component,
    check_components,
    check_count,
    check_state,
)
from numbanet.trainer_state import TrainerState


class Trainer(LearningRates, OptimizerStep, TrainerState, OldTrainerNames):
    """Trainer of a model.

    Args:
        model: a network, an encoding by itself or a composed model; the trainer works on its
            parameters in place.
        optimizer, loss: the components.
        on_nonfinite: action of a step of the optimizer if its inputs, loss or gradients are
            infinite or NaN: "skip" leaves the parameters as they are, zeroes the gradients, counts
            it in n_skipped_steps and warns (on a GPU when the loss is read); "raise" raises
            FloatingPointError, for which every step on a GPU is waited for.
        comm: of numbanet.distributed.init, to train with other processes, each of which makes the
            same calls with samples of its own; see docs/distributed.md.
        perturbation_sigma: standard deviation of logistic noise that each step adds to the outputs
            before the loss, whose value and gradient are those of the sums. Such a step makes the
            forward pass twice; 0 adds none and costs nothing.
        seed: of that noise, which differs in each step.
        deterministic: True for the same bits in every run, as a CPU has; see docs/reliability.md.

    Raises:
        ConfigError: the loss cannot take so many outputs, or the optimizer does not fit the model.
        TypeError: the model, the optimizer, the loss or `comm` is none, such as a config.
        ValueError: another argument cannot be used.
    """

    __slots__ = {  # with texts for help()
        "network": "The model that is trained.",
        **dict.fromkeys(("optimizer", "loss"), "The component, with the options that hold now."),
        **dict.fromkeys(("on_nonfinite", "deterministic", "comm"), "What the trainer was given."),
        "perturbation": "The noise on the outputs; None without one.",
        "layout": "The division of the parameters into matrices and others.",
        **dict.fromkeys(("_grid_range", "_replicas", "_own_training", "__weakref__")),
    }

    def __init__(
        self,
        model: AbstractModel,
        optimizer: AbstractOptimizer,
        loss: AbstractLoss,
        *,
        on_nonfinite: str = "skip",
        comm: Communicator | None = None,
        deterministic: bool = False,
        perturbation_sigma: float = 0.0,
        seed: int = 1337,
    ):
        if on_nonfinite not in ("skip", "raise"):
            raise ValueError(f"on_nonfinite: {shown(on_nonfinite)}; use 'skip' or 'raise'")
        check_components(model=model, optimizer=optimizer, loss=loss)
        self.network, self.optimizer, self.loss = model, optimizer, loss
        self.on_nonfinite = on_nonfinite
        self.deterministic = check_bool("deterministic", deterministic)  # as it was asked for
        model.deterministic |= deterministic
        self.comm = communicator_of(comm)
        self._replicas = Replicas(self.comm)
        self.layout = model.composition.layout
        self._grid_range = GridRange(model.composition.grid_dims, model.target)
        sigma, seed = check_sigma(perturbation_sigma), check_integer("seed", seed, 0)
        self.perturbation, engine = None, model.training_engine
        if sigma > 0:
            self.perturbation = Perturbation(model, sigma, seed, self.comm)
            engine = self.perturbation.engine
        self._own_training = model.target.training(
            engine, model.parameters, optimizer, self.layout, self.comm
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an attribute; a loss and an optimizer are checked as the first ones were."""
        if name in ("optimizer", "loss"):
            check_component(name, value)
        if name == "loss":
            value.row(self.network.n_output_dims, False)  # raises if it cannot take so many outputs
        elif name == "optimizer" and hasattr(self, "layout"):
            check_state(value, self.optimizer, self.layout)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"{summary_of(self.network, self).heading()}\n  n_steps    {self.n_steps}"

    def _repr_html_(self) -> str:
        return summary_of(self.network, self)._repr_html_()

    @property
    def _training(self) -> AbstractTraining:
        self._own_training.follow()
        return self._own_training

    @property
    def n_steps(self) -> int:
        """Number of steps that the optimizer made; a GPU is waited for."""
        return self._training.n_steps

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._training.n_steps = check_count("n_steps", value)
        if value:
            self._grid_range.close()

    @property
    def n_skipped_steps(self) -> int:
        """Number of skipped steps, see on_nonfinite; a GPU is waited for."""
        return self._training.n_skipped_steps

    @n_skipped_steps.setter
    def n_skipped_steps(self, value: int) -> None:
        self._training.n_skipped_steps = check_count("n_skipped_steps", value)

    def inference(
        self, inputs: ArrayLike, out: Array | None = None, max_level: ArrayLike | None = None
    ) -> Array:
        """Evaluate the model at the parameters for inference, by tiny-cuda-nn's name.

        Args:
            inputs: [n, n_input_dims], any batch size.
            out, max_level: see the model's call.

        Returns:
            The outputs, float32 [n, n_output_dims].

        Raises:
            TypeError, ValueError: the arrays do not fit, or `out` shares memory with an input.
        """
        averaged = None if self.optimizer.inference_row is None else self.averaged_params
        return self.network(inputs, averaged, out, max_level)

    @property
    def inference_params(self) -> Array:
        """Parameters for inference, float32 [n_params]; some optimizers average them."""
        averaged = self.averaged_params
        return self.network.params if averaged is None else averaged

    @property
    def averaged_params(self) -> Array | None:
        """Averaged weights for inference; None where the trained ones serve."""
        row = self.optimizer.inference_row
        if row is None:
            return None
        training = self._training
        return training.state[row] if training.is_begun(self.optimizer) else None

    @property
    def optimizer_state(self) -> Array:
        """State of the optimizer, float32 [n_state, n_params]; this rank's, if ranks share it."""
        return self._training.state

    @property
    def weighs_batches(self) -> bool:
        """Whether steps learn on the device how many samples all ranks have."""
        return self._own_training.weighs_batches

    def _batch(self, inputs: Any, targets: Any, pdf: Any, external_dl_dy: Any) -> Batch:
        """Samples of a step as arrays of the target; see training_step."""
        model, target = self.network, self.network.target
        inputs = target.matrix(inputs, "inputs", model.n_input_dims)
        n, n_outputs = inputs.shape[0], model.n_output_dims
        if targets is None and external_dl_dy is None:
            raise ValueError("targets: None is allowed only if external_dl_dy is given")
        if targets is not None:
            targets = target.matrix(targets, "targets", n_outputs, n)
        if pdf is not None:
            pdf = target.matrix(pdf, "pdf", n_outputs, n)
        if external_dl_dy is not None:
            external_dl_dy = target.matrix(external_dl_dy, "external_dl_dy", n_outputs, n)
        return Batch(inputs, targets, pdf if targets is not None else None, external_dl_dy)

    def training_step(
        self,
        inputs: ArrayLike,
        targets: ArrayLike | None,
        pdf: ArrayLike | None = None,
        run_optimizer: bool = True,
        dl_dinput: Array | None = None,
        external_dl_dy: ArrayLike | None = None,
        gradient_mode: str = "overwrite",
        use_inference_params: bool = False,
        max_level: ArrayLike | None = None,
    ) -> Loss:
        """Evaluate the loss of a batch, its gradients, and make a step of the optimizer.

        Args:
            inputs: [n, n_input_dims], any batch size. Grids cover [0, 1]: a warning says if most
                inputs of the first step lie outside (on a GPU when a loss is read).
            targets: [n, n_output_dims]; may be None if external_dl_dy is given.
            pdf: the density with which each target was sampled, [n, n_output_dims].
            run_optimizer: False to leave the parameters as they are.
            dl_dinput: a float32 array [n, n_input_dims], of the model's device, that receives the
                gradient of the inputs.
            external_dl_dy: this gradient of the outputs, [n, n_output_dims], replaces the loss's;
                what comes of it is added up over ranks.
            gradient_mode: "overwrite" or "accumulate" the parameters' gradients, or "ignore" them,
                in which case the optimizer does not run.
            use_inference_params: differentiate at the parameters for inference.
            max_level: from 0 to 1, of all samples or of each [n]; of grids of L levels those up to
                number max_level L are read, features of others are zeros and their entries stay.

        Returns:
            The loss, of the samples of all ranks; it is 0 without targets.

        Raises:
            TypeError, ValueError: an argument does not fit, or ranks make different calls; nothing
                has changed then.
            RankError: another rank ended, or did not come in time.
            FloatingPointError: the loss or a gradient is not finite and on_nonfinite is "raise".
        """
        is_usual = pdf is dl_dinput is external_dl_dy is max_level is None and run_optimizer is True
        if is_usual and gradient_mode == "overwrite" and not use_inference_params:
            again = self._own_training.again(inputs, targets, self.loss, self.optimizer)
            if again is not None:
                return self._loss_of(again, True, False)
        network, target = self.network, self.network.target
        batch = self._batch(inputs, targets, pdf, external_dl_dy)
        check_options_of_step(gradient_mode, run_optimizer, use_inference_params)
        if dl_dinput is not None:
            dl_dinput = target.output_apart(
                dl_dinput, "dl_dinput", batch.inputs.shape,
                inputs=batch.inputs, targets=batch.targets, pdf=batch.pdf,
                external_dl_dy=batch.external_dl_dy, params=network.parameters.own,
                gradients=network.gradients,
            )  # fmt: skip
        gradients = None if gradient_mode == "ignore" else network.target_gradients
        to = dl_dinput
        if max_level is not None:
            leveled = (self.perturbation or network).coarse_to_fine
            dl_dinput = leveled.of_step(self._own_training, batch, max_level, dl_dinput)
        own = self.averaged_params if use_inference_params else None
        n = self._replicas.begin_step(self, batch.inputs.shape[0], run_optimizer, gradient_mode)
        batch.noise = self.perturbation
        batch.n_rows, batch.is_nominal = n, self._replicas.is_nominal
        self._grid_range.take(batch.inputs)
        result = self._training.step(
            batch,
            network.parameters.current() if own is None else network.parameters.converted(own),
            None if targets is None else self.loss,
            self.optimizer,
            gradients,
            dl_dinput,
            overwrite=gradient_mode == "overwrite",
            run_optimizer=run_optimizer and gradients is not None and n > 0,
        )
        if to is not dl_dinput:
            (self.perturbation or network).coarse_to_fine.without_level(dl_dinput, to)
        return self._loss_of(result, targets is not None, external_dl_dy is not None)

    def update_hyperparams(self, config: Mapping[str, Any]) -> None:
        """Change options of the optimizer or the loss, for example
        {"optimizer": {"learning_rate": 1e-3}}; what is not named stays.

        Raises:
            ConfigError: an option does not exist or its value is not allowed; nothing changed then.
        """
        self.optimizer, self.loss = changed(config, self.optimizer, self.loss, self.layout)
