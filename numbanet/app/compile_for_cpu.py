"""`numbanet compile --target cpu`: the CPU's kernels of a model, for this machine and its kind."""

import importlib
import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numbanet
from numbanet.app.arguments import check_number, read_config
from numbanet.app.compile_kernels import check_cache, run_everything
from numbanet.app.errors import AppError, UsageError
from numbanet.app.output import Output
from numbanet.code_store import directory, size


def compile_for_cpu(
    config: str | Path | Mapping[str, Any],
    dims: tuple[int, int],
    batch_size: int,
    with_torch: bool,
    output: Output | None = None,
) -> None:
    """Compile the kernels of training and inference into the kernel cache, and report each.

    Args:
        config: a JSON file, or its content.
        dims: widths of inputs and outputs.
        with_torch: also what numbanet.torch needs.
        output: where the report goes, while it is made.

    Raises:
        UsageError: the config or another argument cannot be used.
        AppError: nothing can be kept, or PyTorch is asked for and not installed.
    """
    check_number("batch size", batch_size, 1)
    content, output = read_config(config), output or Output()
    check_cache()
    if with_torch:
        check_torch()
    (n_before, _), begun = size(directory()), time.perf_counter()
    try:
        with output.telling(Telling(output)):
            model = numbanet.create_from_config(*dims, content, device="cpu")
            run_everything(model, batch_size)
            if with_torch:
                run_module(content, dims, batch_size)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    n_compiled = size(directory())[0] - n_before
    output.say(f"cpu, float32: {n_compiled} kernels, {time.perf_counter() - begun:.1f} s")
    output.say(f"kept in {directory()}")
    output.result({"directory": str(directory()), "compiled": n_compiled})


class Telling(logging.Handler):
    """Handler that prints the compilations that numbanet logs: a kernel and its seconds."""

    def __init__(self, output: Output):
        super().__init__(logging.INFO)
        self._output, self._names = output, Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if not (isinstance(record.args, tuple) and len(record.args) == 3):
            return
        kernel, seconds, _ = record.args
        self._names[kernel] += 1
        name = kernel if self._names[kernel] == 1 else f"{kernel} #{self._names[kernel]}"
        self._output.say(f"{name:44}  {seconds:.2f} s")
        self._output.result({"kernel": name, "seconds": round(seconds, 2)})


def check_torch() -> None:
    """Raises AppError unless PyTorch is installed."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise AppError('PyTorch is not installed; pip install "numbanet[torch]"') from error


def run_module(content: dict, dims: tuple[int, int], batch_size: int) -> None:
    """Run all passes of a PyTorch module with one batch, so that their kernels are compiled."""
    import torch

    from numbanet.torch import NetworkWithInputEncoding

    parts = content.get("encoding", {}), content.get("network", {})
    module = NetworkWithInputEncoding(*dims, *parts, dtype=torch.float32, device="cpu")
    x = torch.zeros(batch_size, dims[0])
    with torch.no_grad():
        module(x)
    module(x).sum().backward()
    x.requires_grad_()
    (dl_dx,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    (module(x).sum() + dl_dx.square().sum()).backward()
