"""The weights of a network as plain matrices, as torch.nn.Linear(bias=False) holds them.

Output k of a layer is row k of its matrix times the input. Two kinds of padding are cut, since
they are without effect: the last matrix's rows beyond the outputs, and the first one's columns
where the padding of the features is 0 (grids). Where the padding is another number, mostly 1, its
columns stay: they are the network's biases, and whoever evaluates the matrices appends that
number to the features.
"""

from collections.abc import Sequence

import numpy as np

from numbanet.arrays import as_host_matrix, as_host_vector
from numbanet.model import NetworkWithInputEncoding


def to_matrices(model: NetworkWithInputEncoding, params=None) -> list[np.ndarray]:
    """Copies of the network's weights, one float32 array [fan_out, fan_in] per layer.

    Args:
        model: a network, with or without encoding.
        params: use these instead of the model's own, float32 [n_params]; for example a trainer's
            inference_params.
    """
    _check(model)
    own = model.target.to_host(model.params) if params is None else params
    flat = as_host_vector(own, "params", model.n_params)
    return [view.copy() for view in _views(model, flat)]


def from_matrices(model: NetworkWithInputEncoding, matrices: Sequence) -> None:
    """Give a network the weights that to_matrices returned, or others of the same shapes.

    What to_matrices cuts, and the encoding's parameters, stay as they are.

    Raises:
        TypeError, ValueError: the matrices do not fit; nothing has changed then.
    """
    _check(model)
    flat = np.array(model.target.to_host(model.params))
    views = _views(model, flat)
    if len(matrices) != len(views):
        raise ValueError(f"matrices: expected {len(views)}, got {len(matrices)}")
    for k, (view, matrix) in enumerate(zip(views, matrices, strict=True)):
        values = as_host_matrix(matrix, f"matrices[{k}]", view.shape[1])
        if values.shape != view.shape:
            raise ValueError(
                f"matrices[{k}]: expected shape {list(view.shape)}, got {list(values.shape)}"
            )
        view[:] = values
    model.params = flat


def _check(model) -> None:
    if not isinstance(model, NetworkWithInputEncoding):
        kind = type(model).__name__
        raise TypeError(f"model: expected a network, got {kind} (of a trainer: trainer.model)")


def _views(model: NetworkWithInputEncoding, flat: np.ndarray) -> list[np.ndarray]:
    """The parts of a parameter vector that matter for the outputs."""
    views, start = [], 0
    for rows, columns in model.network.shapes:
        views.append(flat[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    encoding = model.encoding
    if encoding.padding_value == 0:
        padding = model.network.n_input_dims - encoding.n_outputs
        first = padding if encoding.padding_first else 0
        views[0] = views[0][:, first : first + encoding.n_outputs]
    views[-1] = views[-1][: model.n_output_dims]
    return views
