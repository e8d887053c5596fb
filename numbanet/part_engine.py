"""Engine of a part of a model, with or without a network."""

from typing import Any

from numbanet.composition import ModelPart
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch, Gradients, LossSums
from numbanet.target import AbstractTarget


class PartEngine:
    """Engine of a part, with the range of its parameters."""

    def __init__(self, target: AbstractTarget, part: ModelPart, start: int, engine: Any = None):
        self.part, self.has_network = part, part.network is not None
        self.n_params, self._params = part.n_params, slice(start, start + part.n_params)
        if engine is not None:
            self.engine = engine
        elif part.network is None:
            self.engine = target.encoding_engine(part.padded)
        else:
            self.engine = target.network_engine(EncodedNetwork(part.padded, part.network))

    def forward(self, x: Any, params: Any, y: Any) -> None:
        """Write the outputs."""
        if self.has_network:
            self.engine.inference(x, params[self._params], y)
        else:
            self.engine.forward(x, params[self._params], y)

    def _own(self, gradients: Gradients | None) -> Gradients | None:
        if gradients is None or self.n_params == 0:
            return None
        return Gradients(gradients.flat[self._params])

    def backward(self, x: Any, params: Any, dl_dy: Any, gradients: Any, dl_dx: Any) -> None:
        """Add to `gradients`, those of all parts, and overwrite dl_dx, where they are given."""
        own, params = self._own(gradients), params[self._params]
        if own is None and dl_dx is None:
            return
        if self.has_network:
            batch = Batch(x, external_dl_dy=dl_dy)
            self.engine.forward_backward(batch, params, None, own, dl_dx)
        else:
            self.engine.backward(x, params, dl_dy, own, dl_dx)

    def with_loss(self, batch: Batch, params: Any, *given: Any) -> LossSums:
        """Pass of the network whose outputs are the model's: (loss, gradients, dl_dx)."""
        loss, gradients, dl_dx = given
        return self.engine.forward_backward(
            batch, params[self._params], loss, self._own(gradients), dl_dx
        )

    def double_backward(
        self, x: Any, params: Any, dl_dy: Any, dl_ddx: Any, gradients: Any, outputs: Any
    ) -> None:
        """See the engine's double_backward; `gradients` are those of all parts."""
        own = self._own(gradients)
        self.engine.double_backward(x, params[self._params], dl_dy, dl_ddx, own, outputs)
