"""Derivatives of a model's outputs by its inputs, with their gradients: the terms of a PDE."""

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.activations import Activation
from numbanet.array_types import Array, ArrayLike
from numbanet.composition import Composition, ModelPart
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.identity import Identity
from numbanet.engine import DerivativeEngine, Gradients
from numbanet.jets import SECONDS, Jet
from numbanet.shown import shown
from numbanet.target import AbstractTarget

MOST_COLUMNS = 64  # of a jet: a value, its first and its second derivatives


class OutputDerivatives:
    """Values and derivatives by the inputs; those of `numbanet.torch` are tensors."""

    __slots__ = {  # with texts for help()
        "values": "The outputs, [n, n_output_dims].",
        "jacobian": "Their derivatives by the inputs, [n, n_output_dims, n_input_dims].",
        **dict.fromkeys(("_jet", "_second")),
    }

    values: Any
    jacobian: Any

    def __init__(self, jet: Jet, arrays: tuple[Any, Any, Any]):
        self.values, self.jacobian, self._second = arrays
        self._jet = jet

    def __repr__(self) -> str:
        n, n_outputs, n_dims = self.jacobian.shape
        second = "" if self._jet.wanted is None else f", {self._jet.wanted}"
        return f"{type(self).__name__}({n} samples, {n_outputs} outputs by {n_dims} inputs{second})"

    def _of(self, kind: str) -> Any:
        if self._jet.wanted != kind:
            raise AttributeError(
                f"{kind}: it was not computed; it is what derivatives(x, wanted={kind!r}) has"
            )
        return self._second

    @property
    def laplacian(self) -> Any:
        """Sum of d2y/dx_d^2 over the inputs, [n, n_output_dims]."""
        return self._of("laplacian")

    @property
    def diagonal(self) -> Any:
        """d2y/dx_d^2 for each input, [n, n_output_dims, n_input_dims]."""
        return self._of("diagonal")

    @property
    def hessian(self) -> Any:
        """d2y/dx_d dx_e, [n, n_output_dims, n_input_dims, n_input_dims]."""
        return self._of("hessian")


class Derivatives(OutputDerivatives):
    """Result of `model.derivatives`: values, derivatives by the inputs, and their backward pass.

    Arrays are float32, NumPy arrays on the CPU and arrays on the device on a GPU.
    """

    __slots__ = {"_propagate": None, "_target": None}

    values: Array
    jacobian: Array

    def __init__(
        self, jet: Jet, arrays: tuple[Any, Any, Any], target: AbstractTarget, propagate: Callable
    ):
        super().__init__(jet, arrays)
        self._target, self._propagate = target, propagate

    def backward(
        self,
        dl_dvalues: ArrayLike | None = None,
        dl_djacobian: ArrayLike | None = None,
        dl_dlaplacian: ArrayLike | None = None,
        *,
        dl_ddiagonal: ArrayLike | None = None,
        dl_dhessian: ArrayLike | None = None,
        gradient_mode: str = "overwrite",
    ) -> None:
        """Backpropagate a loss of values and derivatives to the model's `gradients`.

        The model's parameters and the inputs must be as they were. `trainer.optimizer_step()` then
        makes a step.

        Args:
            dl_dvalues, dl_djacobian, dl_dlaplacian, dl_ddiagonal, dl_dhessian: the gradient of the
                loss with respect to each array, of its shape; None for zeros.
            gradient_mode: "overwrite" or "accumulate".

        Raises:
            TypeError, ValueError: an array does not fit, is of derivatives that were not asked
                for, or none is given; nothing has changed then.
        """
        jet = self._jet
        of_seconds = {
            "laplacian": dl_dlaplacian, "diagonal": dl_ddiagonal, "hessian": dl_dhessian
        }  # fmt: skip
        for kind, given in of_seconds.items():
            if given is not None and kind != jet.wanted:
                asked = "order=1" if jet.wanted is None else f"wanted={jet.wanted!r}"
                raise ValueError(
                    f"dl_d{kind}: the derivatives were computed with {asked}; use wanted={kind!r}"
                )
        given = dl_dvalues, dl_djacobian, of_seconds.get(jet.wanted)
        if all(each is None for each in given):
            raise ValueError("dl_dvalues: None of all gradients; give at least one")
        names = "dl_dvalues", "dl_djacobian", f"dl_d{jet.wanted}"
        shapes = [each.shape for each in (self.values, self.jacobian, self._second)]
        flat = *shapes[:2], (*shapes[1][:2], len(jet.second_columns))
        arrays = tuple(
            None if each is None else self._target.array(each, name, shape).reshape(*within)
            for each, name, shape, within in zip(given, names, shapes, flat, strict=True)
        )
        self._propagate(arrays, gradient_mode)


def jet_for(composition: Composition, order: int, wanted: str | None) -> Jet:
    """Jet that `model.derivatives` carries through a model.

    Raises:
        ValueError: an option is not allowed, or there are too many derivatives.
        TypeError: a component of the model has no such derivatives.
    """
    is_integer = isinstance(order, (int, np.integer)) and not isinstance(order, bool)
    if not is_integer or order not in (1, 2):
        raise ValueError(f"order: {shown(order)} is not allowed; use 1 or 2")
    if order == 1 and wanted is not None:
        raise ValueError(f"wanted: {shown(wanted)} is of order 2; leave it out for order 1")
    if wanted is not None and wanted not in SECONDS:
        raise ValueError(f"wanted: {shown(wanted)} is not known; use {', '.join(SECONDS)}")
    jet = Jet(composition.n_input_dims, (wanted or "laplacian") if order == 2 else None)
    if jet.n_columns > MOST_COLUMNS:
        raise ValueError(
            f"wanted: {jet.n_columns} derivatives for each output of {jet.n_dims} inputs; "
            f"{MOST_COLUMNS} are possible, the value among them, and a Laplacian is one"
        )
    for part in composition.parts:
        check_part(part, order)
    return jet


def check_part(part: ModelPart, order: int) -> None:
    """Raises TypeError if a part has no derivatives of that order."""
    if part.input_dims is None and not isinstance(part.encoding, Identity):
        raise TypeError(
            f"part {part.name}: derivatives pass from part to part where these read each other by "
            f"Identity alone, and this one does by {name_of(part.encoding)}; let a part of its own "
            "encode the inputs"
        )
    activations = () if part.network is None else part.network.layer_activations
    check_smooth(part.encoding, activations, order)


def name_of(encoding: AbstractEncoding) -> str:
    return getattr(type(encoding), "otype", type(encoding).__name__)


def check_smooth(
    encoding: AbstractEncoding, activations: tuple[Activation, ...], order: int
) -> None:
    """Raise TypeError if a component lacks derivatives of that order; names those that have."""
    which = "first" if order == 1 else "second"
    for part in encoding.parts:
        found = part.encoding
        if found.add_partial is None or found.n_derivatives < order:
            options = {1: "Linear or Smoothstep, Permutohedral", 2: "Smoothstep"}[order]
            raise TypeError(
                f"encoding {name_of(found)}: its features have no {which} derivatives; use "
                "Identity, Frequency, RandomFourier, OneBlob, SphericalHarmonics, Composite of "
                f"these, or a grid with interpolation {options}"
            )
    for each in activations:
        last = each.second if order == 1 else each.third
        if each.second is None or last is None:
            missing = "second" if each.second is None else "third"
            raise TypeError(
                f"activation {each.name} has no `{missing}`, so that derivatives of order "
                f"{order} have no gradients; use Tanh, Sine, Softplus, Sigmoid, SiLU, "
                "Squareplus, Exponential or None"
            )


def derivatives_of(
    engine: DerivativeEngine, target: AbstractTarget, jet: Jet, inputs: Any, params: Any,
    n_outputs: int, gradients_for: Callable[[str], Gradients | None],
) -> Derivatives:  # fmt: skip
    """Evaluate and differentiate; arrays have been checked.

    Args:
        gradients_for: the gradients to add to, in a mode; raises ValueError.
    """
    n, n_seconds = inputs.shape[0], len(jet.second_columns)
    flat = tuple(target.empty(n, n_outputs, *more) for more in ((), (jet.n_dims,), (n_seconds,)))
    if n > 0:
        engine.forward(inputs, params, jet, flat)

    def propagate(dl_doutputs, gradient_mode):
        gradients = gradients_for(gradient_mode)
        if gradients is not None and n > 0:
            engine.backward(inputs, params, jet, dl_doutputs, gradients)

    values, firsts, seconds = flat
    if jet.wanted is not None:
        seconds = seconds.reshape(n, n_outputs, *jet.second_shape)
    return Derivatives(jet, (values, firsts, seconds), target, propagate)
