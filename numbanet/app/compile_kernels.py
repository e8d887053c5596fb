"""`numbanet compile`: the kernels of a model, compiled where there may be no GPU."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.arguments import check_number, read_config
from numbanet.app.errors import AppError, UsageError
from numbanet.code_store import directory, why_not_used
from numbanet.cuda.driver.compile_only import CompiledKernel, CompileOnlyDevice
from numbanet.cuda.errors import CudaError

HEADINGS = ("registers", "shared", "spills", "local", "PTX", "machine", "seconds")
LEGEND = (
    "per thread: registers, spills and local memory in bytes; per block: bytes of shared memory "
    "beside what a launch asks for; "
    "in the code: PTX and machine instructions"
)


def compile_kernels(
    config: str | Path,
    architectures: Iterable[tuple[int, int]],
    precision: str,
    dims: tuple[int, int],
    batch_size: int,
) -> Iterator[str]:
    """Compile all that training and inference need into the kernel cache; yields a report's lines.

    Args:
        config: a JSON file.
        architectures: compute capabilities.
        dims: widths of inputs and outputs.

    Raises:
        UsageError: the config or another argument cannot be used.
        AppError: a kernel does not compile, a part of the toolkit is missing, or nothing can be
            kept.
    """
    check_number("batch size", batch_size, 1)
    content = read_config(config)
    check_cache()
    for capability in architectures:
        begun = time.perf_counter()
        device = CompileOnlyDevice(capability)
        try:
            model = numbanet.create_from_config(*dims, content, device=device, precision=precision)
            run_everything(model, batch_size)
            for size in model.network.engine.batch_sizes:
                train_once(model, size)
        except CudaError as error:
            raise AppError(f"{device.name}, {precision}: {error}") from error
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error
        seconds = time.perf_counter() - begun
        yield f"{device.name}, {precision}: {len(device.kernels)} kernels, {seconds:.1f} s"
        yield from table(device.kernels)
        yield ""
    yield LEGEND
    yield f"kept in {directory()}"


def run_everything(model: numbanet.TrainableModel, n: int) -> None:
    """Ask a model and its trainer for all they can do with a batch of n."""
    network, trainer = model.network, model.trainer
    inputs = np.zeros((n, network.n_input_dims), np.float32)
    outputs = np.zeros((n, network.n_output_dims), np.float32)
    dl_dinput = network.target.empty(*inputs.shape)
    trainer.training_step(inputs, outputs)
    trainer.training_step(inputs, outputs, pdf=np.ones_like(outputs), dl_dinput=dl_dinput)
    trainer.training_step(inputs, None, external_dl_dy=outputs, use_inference_params=True)
    model(inputs)
    model.input_gradient(0, inputs)


def train_once(model: numbanet.TrainableModel, n: int) -> None:
    """Ask for a training step with a batch of n."""
    target = model.network.target
    inputs, outputs = (
        target.empty(n, k) for k in (model.network.n_input_dims, model.network.n_output_dims)
    )
    model.trainer.training_step(inputs, outputs)


def check_cache() -> None:
    """Raises AppError unless files can be kept: kernels that are lost were compiled in vain."""
    path = directory()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path):
            reason = why_not_used(path)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        raise AppError(
            f"cannot keep kernels in '{path}': {reason}; "
            "name another directory in NUMBANET_CACHE_DIR"
        )


def table(kernels: list[CompiledKernel]) -> Iterator[str]:
    """One line for each kernel, below the headings."""
    width = max(len(kernel.name) for kernel in kernels)
    yield f"{'kernel':{width}}  " + "  ".join(HEADINGS)
    for kernel in kernels:
        cells = zip(HEADINGS, figures(kernel), strict=True)
        line = "  ".join(f"{figure:>{len(heading)}}" for heading, figure in cells)
        yield f"{kernel.name:{width}}  {line}"


def figures(kernel: CompiledKernel) -> tuple[Any, ...]:
    """What HEADINGS names."""
    used = kernel.cubin.resources
    spills = used.spill_stores + used.spill_loads
    sizes = kernel.ptx.n_instructions, kernel.cubin.n_instructions
    return (
        *(used.registers, used.shared_bytes, spills, used.local_bytes),
        *(*sizes, f"{kernel.seconds:.2f}"),
    )
