"""Weights of a network as plain matrices, as torch.nn.Linear(bias=False) holds them.

Output k of a layer is row k of its matrix times the input. Two kinds of padding are cut, since
they are without effect: the last matrix's rows beyond the outputs, and the first one's columns
where the padding of the features is 0 (grids). Where the padding is another number, mostly 1, its
columns stay: they are the network's biases, and whoever evaluates the matrices appends that
number to the features.
"""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from numbanet.array_types import ArrayLike
from numbanet.arrays import as_host_matrix, as_host_vector
from numbanet.encodings.base import AbstractEncoding
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.networks.base import AbstractMLP


class Held(NamedTuple):
    """Components of a model, its parameters, and a function that assigns others."""

    encoding: AbstractEncoding
    network: AbstractMLP
    params: np.ndarray
    assign: Callable[[np.ndarray], None]


@singledispatch
def held_by(model: Any) -> Held:
    """Components and parameters of a model; numbanet.torch adds its modules.

    Raises:
        TypeError: it is no network.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise TypeError(f"model: expected a network, got a {kind} (of a trainer: trainer.network)")


@held_by.register
def _(model: NetworkWithInputEncoding) -> Held:
    def assign(flat: np.ndarray) -> None:
        model.params = flat

    params = np.array(model.target.to_host(model.params))
    return Held(model.encoding, model.network, params, assign)


def to_matrices(model: Any, params: ArrayLike | None = None) -> list[np.ndarray]:
    """Copies of the network's weights, one float32 array [fan_out, fan_in] per layer.

    Args:
        model: a network, with or without encoding, of numbanet or of numbanet.torch.
        params: use these instead of the model's own, float32 [n_params]; for example a trainer's
            inference_params.

    Raises:
        TypeError, ValueError: the model is no network, or the parameters do not fit.
    """
    held = held_by(model)
    given = held.params if params is None else as_host_vector(params, "params", held.params.size)
    return [view.copy() for view in _views(held, given)]


def from_matrices(model: Any, matrices: Sequence[ArrayLike]) -> None:
    """Set the weights of a network to those of to_matrices, or others of the same shapes.

    What to_matrices cuts, and the encoding's parameters, stay as they are.

    Raises:
        TypeError, ValueError: the matrices do not fit; nothing has changed then.
    """
    held = held_by(model)
    views = _views(held, held.params)
    if len(matrices) != len(views):
        raise ValueError(f"matrices: expected {len(views)}, got {len(matrices)}")
    for k, (view, matrix) in enumerate(zip(views, matrices, strict=True)):
        values = as_host_matrix(matrix, f"matrices[{k}]", view.shape[1])
        if values.shape != view.shape:
            raise ValueError(
                f"matrices[{k}]: expected shape {list(view.shape)}, got {list(values.shape)}"
            )
        view[:] = values
    held.assign(held.params)


def _views(held: Held, flat: np.ndarray) -> list[np.ndarray]:
    """Parts of a parameter vector that affect the outputs."""
    encoding, network = held.encoding, held.network
    views, start = [], 0
    for rows, columns in network.shapes:
        views.append(flat[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    if encoding.padding_value == 0:
        padding = network.n_input_dims - encoding.n_outputs
        first = padding if encoding.padding_first else 0
        views[0] = views[0][:, first : first + encoding.n_outputs]
    views[-1] = views[-1][: network.n_output_dims]
    return views
