"""`numbanet compile --target cpu`: the CPU's kernels of a model, for this machine and its kind."""

import importlib
import time
from collections.abc import Iterator
from pathlib import Path

import numbanet
from numbanet.app.arguments import check_number, read_config
from numbanet.app.compile_kernels import check_cache, run_everything
from numbanet.app.errors import AppError, UsageError
from numbanet.code_store import directory, size


def compile_for_cpu(
    config: str | Path, dims: tuple[int, int], batch_size: int, with_torch: bool
) -> Iterator[str]:
    """Compile what training and inference need into the kernel cache; yields a report's lines.

    Args:
        config: a JSON file.
        dims: widths of inputs and outputs.
        with_torch: also what numbanet.torch needs.

    Raises:
        UsageError: the config or another argument cannot be used.
        AppError: nothing can be kept, or PyTorch is asked for and not installed.
    """
    check_number("batch size", batch_size, 1)
    content = read_config(config)
    check_cache()
    if with_torch:
        check_torch()
    (n_before, _), begun = size(directory()), time.perf_counter()
    try:
        model = numbanet.create_from_config(*dims, content, device="cpu")
        run_everything(model, batch_size)
        if with_torch:
            run_module(content, dims, batch_size)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    n_compiled = size(directory())[0] - n_before
    yield f"cpu, float32: {n_compiled} kernels, {time.perf_counter() - begun:.1f} s"
    yield f"kept in {directory()}"


def check_torch() -> None:
    """Raises AppError unless PyTorch is installed."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise AppError('PyTorch is not installed; pip install "numbanet[torch]"') from error


def run_module(content: dict, dims: tuple[int, int], batch_size: int) -> None:
    """Ask a module of PyTorch for all it can do with a batch."""
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
