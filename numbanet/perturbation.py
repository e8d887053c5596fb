"""Perturbation of a trainer's outputs: noise between the forward pass and the loss."""

from typing import Any

from numbanet.coarse_to_fine import CoarseToFine
from numbanet.communicator import Communicator
from numbanet.composed_engine import ComposedEngine
from numbanet.engine import Service
from numbanet.random import Pcg32

LOG2_DRAWS_OF_RANK = 40  # so that each rank has numbers of its own


class Perturbation:
    """Logistic noise of a deviation sigma, and the engine of passes with it.

    Args:
        model: an AbstractModel.
        sigma: of the noise, greater than 0.
        seed: of the random numbers.
        comm: of the trainer.

    Raises:
        ValueError: batches are divided into pieces.
    """

    def __init__(self, model: Any, sigma: float, seed: int, comm: Communicator):
        if comm.pieces is not None:
            raise ValueError(
                f"perturbation_sigma: {sigma} is not possible with pieces, whose results do not "
                "depend on the ranks; use 0, or a communicator without pieces"
            )
        self.sigma, self._rank, self._model = sigma, comm.rank, model
        engine = model.training_engine
        if not isinstance(engine, ComposedEngine):
            engine = ComposedEngine(model.target, model.composition, engine)
        self.engine: Any = engine
        self._coarse_to_fine: CoarseToFine | None = None
        self._noise = model.target.noise(self._of_rank(Pcg32(seed).state))

    def _of_rank(self, state: int) -> int:
        rng = Pcg32.from_state(state)
        rng.advance(self._rank << LOG2_DRAWS_OF_RANK)
        return rng.state

    @property
    def state(self) -> int:
        """State of the stream of random numbers; a GPU is waited for."""
        return self._noise.state

    def restore(self, state: int) -> None:
        """Continue a stream of rank 0, on every rank with numbers of its own."""
        self._noise.state = self._of_rank(state)

    @property
    def coarse_to_fine(self) -> CoarseToFine:
        """Evaluator with a max_level, by engines that perturb; raises TypeError without a grid."""
        if self._coarse_to_fine is None:
            given = self._model.target, self._model.composition, self.engine
            self._coarse_to_fine = CoarseToFine(*given)
        return self._coarse_to_fine

    def perturb(self, y: Any, to: Any) -> None:
        """Write outputs plus noise, and move on in the stream."""
        self._noise.perturb(self.sigma, y, to)

    def services(self) -> list[Service]:
        """Kernels of perturbed training."""
        why = "perturbation_sigma is not 0, so that the forward pass is made twice"
        return [Service("training", "forward pass, noise, loss, both passes", why)]
