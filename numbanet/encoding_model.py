"""Model that consists of an encoding alone."""

from typing import Any

from numbanet.composed_engine import ComposedEngine
from numbanet.composition import Composition
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Gradients
from numbanet.model import AbstractModel
from numbanet.model_passes import Context
from numbanet.part_components import padded_encoding_width
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget


class Encoding(AbstractModel):
    """An encoding by itself.

    Args:
        encoding: the encoding component.
        rng: where the initial parameters come from.
        target: the device that it runs on.
        alignment: pad the features to a multiple of this; 0 for no padding.
    """

    __slots__ = {
        "_training_engine": None,
        "alignment": "Outputs are a multiple of this; 0 for no padding.",
    }

    def __init__(
        self, encoding: AbstractEncoding, rng: Pcg32, target: AbstractTarget, alignment: int = 0
    ):
        n_outputs = padded_encoding_width(encoding, alignment) if alignment else None
        super().__init__(Composition.of(encoding, None, n_outputs), rng, target)
        self.encoding, self.alignment = encoding, alignment
        self.padded_output_dims = self.n_output_dims
        self.engine = target.encoding_engine(encoding.padded(self.n_output_dims))
        self._training_engine = None

    @property
    def training_engine(self) -> ComposedEngine:
        if self._training_engine is None:
            self._training_engine = ComposedEngine(self.target, self.composition, self.engine)
        return self._training_engine

    def _components(self):
        return {"encoding": self.encoding, "alignment": self.alignment}

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.forward(inputs, params, outputs)

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        self.engine.backward(context.inputs, context.params, dl_dy, gradients, dl_dx)
