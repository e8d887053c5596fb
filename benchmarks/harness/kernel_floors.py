"""Least work of each CUDA kernel of the sample configs, counted by hand."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness.sample_kernels import CHAIN, N_SAMPLES
from numbanet.cuda.chain.tensor import side_for

HALF, FLOAT = 2, 4  # bytes
WARP = 32


@dataclass(frozen=True)
class Floor:
    """The least that all launches of a kernel in a pass must do for each item."""

    per: str  # kind of item
    n_items: int
    operations: float
    n_bytes: float


def sample(operations: float, n_bytes: float) -> Floor:
    return Floor("sample", N_SAMPLES, operations, n_bytes)


def grid_floor(operations_of: Callable, table_bytes: int, more: Callable) -> Callable:
    """operations_of(corners, features) for a level, and bytes of the table for each feature."""

    def floor(model, layers):
        grid = model.network.encoding
        corners, features = grid.n_corners, grid.n_features_per_level
        each = corners * features * table_bytes + features * HALF
        operations = operations_of(grid.n_dims, corners, features)
        return sample(grid.n_levels * operations, grid.n_levels * each + more(grid.n_dims))

    return floor


def product_floor(model, layers):
    """One multiply-add for each weight; inputs and outputs cross once, weights stay in caches."""
    operations = sum(rows * columns for rows, columns in layers)
    return sample(operations, sum(HALF * (rows + columns) for rows, columns in layers))


def tensor_floor(model, layers):
    """product_floor for tensor cores, which do the multiply-adds."""
    return replace(product_floor(model, layers), operations=0)


def loss_floor(model, layers):
    n = model.network.n_output_dims
    return sample(6 * n, n * (HALF + FLOAT + HALF))


def adam_floor(model, layers):
    """Weight, gradient and 3 rows of state; all but the gradient are written, and the copy.

    Of parameters of a table that got no gradient, only that is read.
    """
    n, n_matrix = model.network.n_params, model.network.network.n_params
    of_table = model.network.gradients.numpy()[n_matrix:]
    share = (n_matrix + np.count_nonzero(of_table)) / n
    return Floor("parameter", n, share * 15, FLOAT + share * (8 * FLOAT + HALF))


def convert_floor(model, layers):
    return Floor("parameter", model.network.n_params, 1, FLOAT + HALF)


def outputs_floor(model, layers):
    """The user's gradient is scaled; outputs are only converted."""
    n = model.network.n_output_dims
    return sample(n, n * (HALF + FLOAT))


def one_blob_forward_floor(model, layers):
    """Two integrals of 5 operations for each input; every feature is written."""
    n = model.network.n_input_dims
    return sample(2 * 5 * n, n * FLOAT + model.network.encoding.n_outputs * HALF)


def one_blob_backward_floor(model, layers):
    """Three bins of an input have a slope; their gradients are read, and the input's is written."""
    n = model.network.n_input_dims
    return sample((2 * 3 + 3) * n, n * (FLOAT + 3 * HALF + FLOAT))


def finish_floor(model, layers):
    """Gradients are looked at, and sums of the loss added up."""
    return Floor("number", model.network.n_params + N_SAMPLES // WARP, 1, FLOAT)


def encoding_work(encoding) -> tuple[float, float]:
    """Operations of an encoding for a sample, and how many numbers of a table it reads."""
    if type(encoding).__name__ == "OneBlob":
        return 2 * 5 * encoding.n_dims, 0
    dims, corners, features = encoding.n_dims, encoding.n_corners, encoding.n_features_per_level
    operations = 2 * dims + corners + corners * features
    return encoding.n_levels * operations, encoding.n_levels * corners * features


def fused_inference_floor(model, layers):
    """Features and activations; the products are the tensor cores'."""
    network = model.network
    operations, numbers = encoding_work(network.encoding)
    n_activated = sum(rows for rows, _ in layers)
    n = network.n_input_dims + network.n_output_dims
    return sample(operations + n_activated, n * FLOAT + numbers * HALF)


def fused_training_floor(model, layers):
    """The same forth and back, and the loss; gradients of private levels stay in the block."""
    network = model.network
    forward = fused_inference_floor(model, layers)
    _, numbers = encoding_work(network.encoding)
    n_private = network.engine.fused.training_shape.layout.n_private
    shared = numbers * n_private / max(len(network.encoding.partition_param_ends), 1)
    operations = 2 * forward.operations + 6 * network.n_output_dims
    return sample(operations, forward.n_bytes + (numbers - shared) * FLOAT)


def wide_training_floor(model, layers):
    """Each value and each gradient between layers is written once, and each value read again."""
    fused, layout = fused_training_floor(model, layers), model.network.engine.wide.layout
    n_bytes = (layout.unit_bytes + sum(layout.sizes[:-1])) / WARP
    return replace(fused, n_bytes=fused.n_bytes + n_bytes)


def fused_to_inputs_floor(model, layers):
    """Forth and back, and the gradients of inputs are written; the table stays in caches."""
    forward = fused_inference_floor(model, layers)
    n_bytes = forward.n_bytes + model.network.n_input_dims * FLOAT
    return sample(2 * forward.operations, n_bytes)


def wide_to_inputs_floor(model, layers):
    """Features, their gradients and hidden activations are written once and read again."""
    fused, sizes = fused_to_inputs_floor(model, layers), model.network.engine.wide.layout.sizes
    n_bytes = 2 * (sizes[0] + sum(sizes[:-1])) / WARP
    return replace(fused, n_bytes=fused.n_bytes + n_bytes)


def wide_gradients_floor(model, layers):
    """The second kernel reads all units; the products are the tensor cores'."""
    return sample(0, model.network.engine.wide.layout.unit_bytes / WARP)


# kernel's name: its floor, of the model and the layers (fan out, fan in) that it is launched for
FLOORS = {
    r"Grid_forward": grid_floor(lambda d, c, f: 2 * d + c + c * f, HALF, lambda d: d * FLOAT),
    r"Grid_backward_params": grid_floor(
        lambda d, c, f: 2 * d + c + c * f, FLOAT, lambda d: d * FLOAT
    ),
    r"Grid_backward_input": grid_floor(
        lambda d, c, f: 2 * d + c * f + d * c, HALF, lambda d: 2 * d * FLOAT
    ),
    r"OneBlob_forward": one_blob_forward_floor,
    r"OneBlob_backward_input": one_blob_backward_floor,
    r"fused_inference_.*": fused_inference_floor,
    r"fused_training_to_inputs_.*": fused_to_inputs_floor,
    r"wide_training_to_inputs_.*": wide_to_inputs_floor,
    r"fused_training_.*": fused_training_floor,
    r"wide_training_.*": wide_training_floor,
    r"wide_gradients_.*": wide_gradients_floor,
    r"product_.*": product_floor,
    r"tensor_.*": tensor_floor,
    r".*_loss": loss_floor,
    r"finish_step": finish_floor,
    r"Adam_optimize": adam_floor,
    r"convert": convert_floor,
    r"outputs_in_rows": outputs_floor,
    r"external_gradient": outputs_floor,
}


def floor_of(kernel: str, model, title: str) -> Floor:
    """The floor of all launches of a kernel in a pass."""
    for pattern, floor in FLOORS.items():
        if re.fullmatch(pattern, kernel):
            return floor(model, layers_of(kernel, model, title))
    raise LookupError(f"{kernel}: say in FLOORS what it must do")


def layers_of(kernel: str, model, title: str) -> list[tuple[int, int]]:
    """The shapes (fan out, fan in) of the layers for which a product is launched in a pass."""
    network, encoding = model.network.network, model.network.encoding
    rows = [*(rows for rows, _ in network.shapes[:-1]), network.n_output_dims]
    shapes = [(n, columns) for n, (_, columns) in zip(rows, network.shapes, strict=True)]
    hidden = len(shapes) - 1
    activations = [*[network.activation] * hidden, network.output_activation]
    if "forward" in kernel:
        return [
            shape for shape, name in zip(shapes, activations, strict=True) if f"_{name}_" in kernel
        ]
    if "weight_gradients" in kernel:
        sides = re.search(r"_(\d+)x(\d+)_", kernel)
        return [
            shape
            for shape in shapes
            if not sides or tuple(map(side_for, shape)) == tuple(map(int, sides.groups()))
        ]
    if "backward" in kernel:
        below = ["None", *activations[:-1]]
        wants_first = encoding.n_params > 0 or title == CHAIN
        return [
            shape
            for k, (shape, name) in enumerate(zip(shapes, below, strict=True))
            if f"_{name}_" in kernel and (k or wants_first)
        ]
    return shapes
