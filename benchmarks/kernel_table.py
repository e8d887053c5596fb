"""Write docs/kernels.md: what each CUDA kernel of the sample configs takes, and what it must take.

Needs no GPU: kernels are compiled and assembled for sm_90, and executed by the PTX emulator of the
tests, which counts.
"""

import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np

import numbanet
from numbanet.cuda import toolkit
from numbanet.cuda.compile_only import CompileOnlyDevice
from numbanet.cuda.target import CudaTarget
from numbanet.cuda.tensor_products import side_for
from numbanet.model import NetworkWithInputEncoding
from numbanet.random import Pcg32

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "kernels.md"
CAPABILITY, PRECISION = (9, 0), "float16"
HALF, FLOAT = 2, 4  # bytes
SAMPLES = ("config_hash", "config_oneblob")
DIMS = (2, 3)  # of images
N_SAMPLES = 1024
WARP, SECTOR = 32, 32

GRADIENT, CHAIN = "gradient of the inputs", "gradient of the inputs by the chain"  # passes

CODE = ("kernel", "launches", "registers", "shared", "spills", "instructions")
LOOP = ("fused kernel, 16 samples", "machine instructions", "floor")
COUNTS = (
    *("kernel", "per", "instructions", "operations"),
    *("loaded", "stored", "reduced", "least", "conflicts"),
)


def passes(model):
    """The parts of a job; each kernel is counted in the first one of these that launches it."""
    rng = np.random.default_rng(0)
    x = rng.random((N_SAMPLES, model.network.n_input_dims), np.float32)
    y = rng.random((N_SAMPLES, model.network.n_output_dims), np.float32)
    yield "training step", lambda: model.trainer.training_step(x, y)
    yield "inference", lambda: model.trainer.inference(x)
    yield GRADIENT, lambda: model.trainer.input_gradient(0, x)
    chain = chain_of(model.network)
    yield CHAIN, lambda: chain.input_gradient(0, x)


def chain_of(network):
    """The same components, not fused."""
    target = CudaTarget(network.target.device, PRECISION, fused=False)
    rng = Pcg32(1337)
    return NetworkWithInputEncoding(network.encoding, network.network, rng, target)


def create(name: str, device):
    config = numbanet.load_config(ROOT / "samples" / "configs" / f"{name}.json")
    return numbanet.create_from_config(*DIMS, config, device=device, precision=PRECISION)


# What is compiled


def code_rows(name: str) -> list[tuple[str, ...]]:
    """The figures of CODE for each kernel, launched or not."""
    device = CompileOnlyDevice(CAPABILITY)
    model = create(name, device)
    for title, run in passes(model):
        device.launches.clear()
        run()
        if title == "training step":
            launches = [kernel.name for kernel in device.launches]
    rows = []
    for kernel in device.kernels:
        used = kernel.cubin.resources
        figures = (
            *(launches.count(kernel.name), used.registers, used.shared_bytes),
            *(used.spill_stores + used.spill_loads, kernel.cubin.n_instructions),
        )
        rows.append((kernel.name, *map(str, figures)))
    return rows


def loop_rows(name: str) -> list[tuple[str, ...]]:
    """The figures of LOOP for each fused kernel."""
    import machine_code  # which imports this module

    rows = []
    for kernel in machine_code.fused_kernels(name):
        floor = machine_code.FLOORS.get((name, kernel.name))
        figures = shown(machine_code.counts(kernel).total()), shown(floor) if floor else "-"
        rows.append((kernel.name, *figures))
    return rows


def toolchain() -> str:
    """All that determines machine code besides our own."""
    python = ".".join(platform.python_version_tuple()[:2])
    versions = f"Python {python}, Numba {numba.__version__}, {toolkit.compiler_version()}"
    return f"{versions}, {toolkit.assembler_version()}"


# What a kernel must do


@dataclass(frozen=True)
class Floor:
    """The least that all launches of a kernel in a pass must do for each item."""

    per: str  # what an item is
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
    """As product_floor; the multiply-adds are the tensor cores'."""
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
    """Inputs and gradients are looked at, and sums of the loss added up."""
    n_sums = N_SAMPLES // WARP
    n = N_SAMPLES * model.network.n_input_dims + model.network.n_params + n_sums
    return Floor("number", n, 1, FLOAT)


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
    n_private = network.engine._training_shape.layout.n_private
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
    """All of these are read; the products are the tensor cores'."""
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


# What a kernel does


def count(name: str):
    """The model, and for each kernel that is launched its counters and the pass they are of."""
    sys.path.append(str(ROOT))
    from emulator.device import EmulatedDevice

    device = EmulatedDevice(CAPABILITY, racecheck=None)
    device.counters = {}
    model = create(name, device)
    counted = {kernel: (each, "creation") for kernel, each in device.counters.items()}
    for title, run in passes(model):
        device.counters = {}
        run()
        for kernel, each in device.counters.items():
            counted.setdefault(kernel, (each, title))
    return model, counted


def count_rows(name: str) -> list[tuple[str, ...]]:
    """The figures of COUNTS for each kernel that is launched."""
    model, counted = count(name)
    rows = []
    for kernel, (counters, title) in counted.items():
        floor = floor_of(kernel, model, title)
        n = floor.n_items
        sectors = (
            *(counters.global_load_sectors, counters.global_store_sectors),
            *(counters.global_atomic_sectors,),
        )
        figures = (
            *(counters.n_instructions * WARP / n, floor.operations),
            *(SECTOR * each / n for each in sectors),
            *(floor.n_bytes, counters.shared_conflicts / max(counters.shared_wavefronts, 1)),
        )
        *numbers, conflicts = figures
        rows.append((kernel, floor.per, *map(shown, numbers), f"{conflicts:.1%}"))
    return rows


def shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


# The page

INTRODUCTION = """\
# CUDA kernels

Generated by `python benchmarks/kernel_table.py`, which needs no GPU: the sample configs on images,
sm_90, float16, {n} samples a step. `numbanet compile CONFIG --arch sm_90` prints the first table
for any config and GPU.

**Code.** Launches in a training step; registers of a thread; bytes of shared memory of a block, but
for weights and rows, which a launch asks for (`numbanet/cuda/fused_layout.py`); bytes spilled;
machine instructions, each once.

**16 samples.** Machine instructions that a warp executes for 16 samples in a fused kernel's loop,
counted by `benchmarks/machine_code.py`, and a floor counted by hand there.

**Counts, beside the floor.** Per item, for all launches of the kernel in a training step, or in the
first other pass (creation, inference, gradient of the inputs, the same by the chain of kernels)
that launches it.

- *instructions*: PTX instructions that threads execute, counted by the emulator. *operations*: the
  float32 operations that the formula needs, a multiply-add as one, without indices and conversions,
  and without the products that tensor cores compute.
- *loaded, stored, reduced*: bytes of the 32-byte sectors that each warp's instruction touches. What
  comes from a cache counts too. *least*: bytes of all that must be loaded, stored or reduced, once,
  if the kernel's neighbours stay what they are; weights, which stay in the caches, left out. A
  table's entry has 4 bytes, and 8 as a gradient, of a sector.
- *conflicts*: how many of the accesses to shared memory wait for a bank.
"""


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, ("---", *("---:" for _ in headings[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page() -> str:
    parts = [INTRODUCTION.format(n=N_SAMPLES), f"Toolchain: {toolchain()}\n"]
    for name in SAMPLES:
        parts.append(f"## {name}.json\n")
        parts.append(table(CODE, code_rows(name)))
        parts.append(table(LOOP, loop_rows(name)))
        parts.append(table(COUNTS, count_rows(name)))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
