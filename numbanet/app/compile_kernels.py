"""`numbanet compile`: the kernels of a model, compiled where there may be no GPU."""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.arguments import check_number, read_config
from numbanet.app.errors import AppError, UsageError
from numbanet.app.output import Output
from numbanet.code_store import directory, why_not_used
from numbanet.cuda.driver.compile_only import CompiledKernel, CompileOnlyDevice
from numbanet.cuda.errors import CudaError

HEADINGS = ("registers", "shared", "spills", "local", "ptx", "machine", "seconds")
LEGEND = (
    "per thread: registers, spills and local memory in bytes; per block: bytes of shared memory "
    "beside what a launch asks for; "
    "in the code: PTX and machine instructions; #2 is another kernel of the same name"
)
NAME_WIDTH = 44


def compile_kernels(
    config: str | Path | Mapping[str, Any],
    architectures: Iterable[tuple[int, int]],
    precision: str,
    dims: tuple[int, int],
    batch_size: int,
    output: Output | None = None,
) -> None:
    """Compile the kernels of training and inference into the kernel cache, and report each.

    Args:
        config: a JSON file, or its content.
        architectures: compute capabilities.
        dims: widths of inputs and outputs.
        output: where the report goes, while it is made.

    Raises:
        UsageError: the config or another argument cannot be used.
        AppError: a kernel does not compile, a part of the toolkit is missing, or nothing can be
            kept.
    """
    check_number("batch size", batch_size, 1)
    content, output = read_config(config), output or Output()
    check_cache()
    for capability in architectures:
        report = Report(output, precision)
        device = CompileOnlyDevice(capability, on_built=report)
        report.begin(device.name)
        begun = time.perf_counter()
        try:
            with output.telling(logging.NullHandler()):  # the report has a line for each
                model = numbanet.create_from_config(
                    *dims, content, device=device, precision=precision
                )
                run_everything(model, batch_size)
                for size in model.network.engine.batch_sizes:
                    train_once(model, size)
        except CudaError as error:
            raise AppError(f"{device.name}, {precision}: {error}") from error
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error
        report.end(time.perf_counter() - begun)
    output.say(LEGEND)
    output.say(f"kept in {directory()}")
    output.result({"directory": str(directory())})


class Report:
    """Printer of the kernels of an architecture, one line each."""

    def __init__(self, output: Output, precision: str):
        self._output, self._precision, self._names = output, precision, Counter()

    def begin(self, architecture: str) -> None:
        self._architecture = architecture
        self._output.say(f"{'kernel':{NAME_WIDTH}}  " + "  ".join(HEADINGS))

    def __call__(self, kernel: CompiledKernel) -> None:
        self._names[kernel.name] += 1
        number = self._names[kernel.name]
        name = kernel.name if number == 1 else f"{kernel.name} #{number}"
        found = dict(zip(HEADINGS, figures(kernel), strict=True))
        cells = (f"{figure:>{len(heading)}}" for heading, figure in found.items())
        self._output.say(f"{name:{NAME_WIDTH}}  " + "  ".join(cells))
        place = {"architecture": self._architecture, "precision": self._precision}
        self._output.result({**place, "kernel": name, **found})

    def end(self, seconds: float) -> None:
        n = self._names.total()
        self._output.say(f"{self._architecture}, {self._precision}: {n} kernels, {seconds:.1f} s\n")


def run_everything(model: numbanet.TrainableModel, n: int) -> None:
    """Run every pass of a model and its trainer with a batch of n, to compile all kernels."""
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
    """Run a training step, and inference, with a batch of n."""
    target = model.network.target
    inputs, outputs = (
        target.empty(n, k) for k in (model.network.n_input_dims, model.network.n_output_dims)
    )
    model.trainer.training_step(inputs, outputs)
    model(inputs)


def check_cache() -> None:
    """Raise AppError unless the cache can be written; kernels would be compiled in vain."""
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


def figures(kernel: CompiledKernel) -> tuple[Any, ...]:
    """A kernel's figures in the order of HEADINGS."""
    used = kernel.cubin.resources
    spills = used.spill_stores + used.spill_loads
    sizes = kernel.ptx.n_instructions, kernel.cubin.n_instructions
    return (
        *(used.registers, used.shared_bytes, spills, used.local_bytes),
        *(*sizes, round(kernel.seconds, 2)),
    )
