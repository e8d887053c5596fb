"""Derivatives of models by their inputs on tensors, without parameters of their own."""

from typing import Any

from torch import Tensor, float32

from numbanet.composition import Composition
from numbanet.jets import Jet
from numbanet.torch.descriptions import components, quantized
from numbanet.torch.tensors import DeviceTensors, HostTensors


class JetEvaluator:
    """Evaluator of derivatives of a model with a network for tensors of one device, in float32.

    Args:
        description: see descriptions.py.
        target: of its engine, with float32.
    """

    def __init__(self, description: str, target: Any):
        self.composition, self._target = Composition.of(*components(description)), target
        self._engine = target.derivative_engine(self.composition)
        in_few_bits = quantized(description)
        self._tensors = HostTensors(in_few_bits)
        if target.name != "cpu":
            boundary = self.composition.boundary
            self._tensors = DeviceTensors(target.device, "float32", boundary, in_few_bits)
        self._passes = self._tensors.recurring(self._engine)

    def forward(self, x: Tensor, params: Tensor, jet: Jet) -> tuple[Tensor, Tensor, Tensor]:
        """Values [n, n_outputs], first derivatives [n, n_outputs, n_dims] and second ones."""
        n, n_outputs = x.shape[0], self.composition.n_output_dims
        empty, n_seconds = self._tensors.empty, len(jet.second_columns)
        found = tuple(empty(n, n_outputs, *more) for more in ((), (jet.n_dims,), (n_seconds,)))
        if n:
            read = self._tensors.read(params)
            self._tensors.run(self._passes, self._forward, (jet,), x, *read, *found)
        return found

    def _forward(self, jet, inputs, params, *outputs) -> None:
        """`forward` with arrays of the target."""
        self._engine.forward(inputs, params, jet, outputs)

    def backward(
        self, x: Tensor, params: Tensor, jet: Jet, dl_doutputs: tuple[Tensor | None, ...]
    ) -> Tensor:
        """Gradient of the parameters."""
        gradients = self._tensors.gradients(params.shape[0])
        gradients.zero_()
        if x.shape[0]:
            given = [
                None if each is None else each.to(float32).contiguous() for each in dl_doutputs
            ]
            read, has = self._tensors.read(params), tuple(each is not None for each in given)
            self._tensors.run(self._passes, self._backward, (jet, has), x, *read, *given, gradients)
        return gradients

    def _backward(self, jet, has, inputs, params, *others) -> None:
        """`backward` with arrays of the target."""
        *dl_doutputs, flat = others
        gradients = self._target.gradients_in(flat, self.composition.boundary)
        self._engine.backward(inputs, params, jet, tuple(dl_doutputs), gradients)
