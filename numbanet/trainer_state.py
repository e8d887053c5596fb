"""State of a trainer as snapshots and pickles hold it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet.replicas import check_equal
from numbanet.saved_training import SavedTraining, config_of, tensor_shapes


class TrainerState:
    """Saving and restoring of a Trainer, whose attributes it uses."""

    __slots__ = ()

    def __reduce__(self: Any):
        """Pickle the state of a snapshot, with the model."""
        if self.comm.size > 1:
            raise TypeError(f"trainer: one of {self.comm.size} ranks cannot be pickled; save it")
        saved = SavedTraining(
            self.network.composition, self.loss, self.optimizer,
            self.n_steps, self.n_skipped_steps, {}, self.deterministic, **self.noise(),
        )  # fmt: skip
        return restored, (type(self), self.network, saved, self.tensors(), self.on_nonfinite)

    def config(self: Any) -> dict[str, Any]:
        """JSON config of everything, with every option written out."""
        sigma = 0.0 if self.perturbation is None else self.perturbation.sigma
        components = self.network.composition, self.loss, self.optimizer
        return config_of(*components, self.deterministic, sigma)

    def noise(self: Any) -> dict[str, Any]:
        """Options and state of the noise on the outputs, as SavedTraining has them."""
        found = self.perturbation
        if found is None:
            return {}
        return {"perturbation_sigma": found.sigma, "noise_state": found.state}

    def check_replicas(self: Any) -> None:
        """Compare digests over all ranks: of parameters, and of state that they do not share.

        Raises:
            RankError: on all ranks, naming one whose bits differ from rank 0's.
        """
        check_equal(self.comm, self.tensors() | {"params": self.network.parameters.common()})

    def tensors(self: Any) -> dict[str, np.ndarray]:
        """Tensors of a snapshot, always in the same order, on the host; for all ranks at once."""
        _, *others = tensor_shapes(self.optimizer, self.layout)
        training, to_host = self._training, self.network.target.to_host
        own = {"optimizer.state": training.whole_state()}
        for name in others[1:]:
            own[name] = to_host(getattr(training, name.removeprefix("optimizer.")))
        return {"params": self.network.parameters.to_host(), **own}

    def restore(self: Any, saved: SavedTraining, tensors: Mapping[str, np.ndarray]) -> None:
        """Restore everything from a snapshot that has been checked to be of this model."""
        training, copy = self._training, self.network.target.copy_from_host
        self.network.parameters.from_host(tensors["params"])
        training.set_state(tensors["optimizer.state"])
        for name in tensors.keys() - {"params", "optimizer.state"}:
            copy(getattr(training, name.removeprefix("optimizer.")), tensors[name])
        self.optimizer, self.loss = saved.optimizer, saved.loss
        if self.perturbation is not None and saved.noise_state is not None:
            self.perturbation.restore(saved.noise_state)
        self.n_steps, self.n_skipped_steps = saved.n_steps, saved.n_skipped_steps


def restored(kind: type, model: Any, saved: SavedTraining, tensors: Any, nonfinite: str) -> Any:
    """Trainer from a pickle."""
    options = {"on_nonfinite": nonfinite, "deterministic": saved.deterministic}
    options["perturbation_sigma"] = saved.perturbation_sigma
    trainer = kind(model, saved.optimizer, saved.loss, **options)
    trainer.restore(saved, tensors)
    return trainer
