"""An encoding by itself."""

import math
from typing import Any

from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Gradients
from numbanet.model import AbstractModel, Context
from numbanet.networks.base import next_multiple
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget


def padded_encoding_width(encoding: AbstractEncoding, alignment: int) -> int:
    """Width of an encoding's output after padding, as tiny-cuda-nn pads."""
    divisor = math.lcm(alignment, encoding.required_output_alignment)
    return next_multiple(encoding.n_outputs, divisor)


class Encoding(AbstractModel):
    """An encoding by itself.

    Args:
        encoding: the encoding component.
        rng: where the initial parameters come from.
        target: what it runs on.
        alignment: pad the features to a multiple of this; 0 for no padding.
    """

    __slots__ = {"alignment": "Outputs are a multiple of this; 0 for no padding."}

    def __init__(
        self, encoding: AbstractEncoding, rng: Pcg32, target: AbstractTarget, alignment: int = 0
    ):
        super().__init__(encoding.initial_params(rng), 0, target)
        self.encoding, self.alignment = encoding, alignment
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = encoding.n_outputs
        if alignment:
            self.n_output_dims = padded_encoding_width(encoding, alignment)
        self.padded_output_dims = self.n_output_dims
        self.engine = target.encoding_engine(encoding.padded(self.n_output_dims))

    def _components(self):
        return {"encoding": self.encoding, "alignment": self.alignment}

    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.encoding.param_shapes)

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.forward(inputs, params, outputs)

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        self.engine.backward(context.inputs, context.params, dl_dy, gradients, dl_dx)
