"""Replacement of tinycudann in programs that cannot be edited."""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType

import torch

from numbanet.torch import bindings, modules, precisions
from numbanet.torch.evaluator import free_temporary_memory

PUBLIC = {
    "Encoding": modules.Encoding,
    "Network": modules.Network,
    "NetworkWithInputEncoding": modules.NetworkWithInputEncoding,
    "free_temporary_memory": free_temporary_memory,
    "supports_jit_fusion": bindings.supports_jit_fusion,
}


VERSION = "2.0"  # of the bindings whose interface this is
# Capabilities that tinycudann's modules look for, before those of the machine's GPUs.
ALL_COMPUTE_CAPABILITIES = (
    *(20, 21, 30, 35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
    *(100, 101, 103, 120, 121),
)


def null_tensor_like(tensor: torch.Tensor) -> torch.Tensor:
    """Tensor without dimensions, which represents None."""
    return torch.empty([], dtype=tensor.dtype, device=tensor.device)


def null_tensor_to_none(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor, or None if it has no dimensions."""
    return None if tensor.dim() == 0 else tensor


class ModuleFunction:
    """Function of tinycudann's modules, which some programs call themselves."""

    @staticmethod
    def apply(native, x, params, loss_scale) -> torch.Tensor:
        """Padded outputs of a native module, which autograd can differentiate."""
        return native.outputs(x, params)


class ModuleFunctionBackward(torch.autograd.Function):
    """Backward pass of a native module, which can be differentiated for the inputs."""

    @staticmethod
    def forward(ctx, of_forward, dl_dy, x, params, y):
        """Gradients of x and params, null tensors where there are none.

        Args:
            of_forward: has native_tcnn_module, loss_scale, and what the module's fwd returned as
                native_ctx.
        """
        ctx.native, ctx.of_native = of_forward.native_tcnn_module, of_forward.native_ctx
        ctx.save_for_backward(dl_dy, x, params)
        found = ctx.native.bwd(ctx.of_native, x, params, y, dl_dy)
        return tuple(
            null_tensor_like(given) if gradient is None else gradient
            for gradient, given in zip(found, (x, params), strict=True)
        )

    @staticmethod
    def backward(ctx, dl_ddx, dl_ddparams):
        dl_dy, x, params = ctx.saved_tensors
        dl_ddy, dl_dparams, dl_dx = ctx.native.bwd_bwd_input(
            ctx.of_native, x, params, dl_ddx, dl_dy
        )
        return None, dl_ddy, dl_dx, dl_dparams, None


class Finder(DistributionFinder):
    """Metadata finder that tells importlib.metadata the version; the modules are there already."""

    def find_spec(self, name, path=None, target=None):
        return None

    def find_distributions(self, context=DistributionFinder.Context()):  # noqa: B008
        wanted = context.name
        if wanted is None or wanted.lower().replace("_", "-") == "tinycudann":
            yield StandIn()


class StandIn(Distribution):
    """Metadata of tinycudann, as of an installed package."""

    def read_text(self, filename):
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: tinycudann\nVersion: {VERSION}\n"
        return None

    def locate_file(self, path):
        return Path(__file__).parent / path


PRIVATE = {
    "_C": bindings,
    "_module_function": ModuleFunction,
    "_module_function_backward": ModuleFunctionBackward,
    "_torch_precision": bindings.dtype_of,
    "null_tensor_like": null_tensor_like,
    "null_tensor_to_none": null_tensor_to_none,
}


def module(name: str, **contents) -> ModuleType:
    """Module of that name, which counts as installed."""
    made = ModuleType(name, "Made by numbanet.torch.install_as_tinycudann().")
    vars(made).update(contents, __spec__=ModuleSpec(name, None, is_package="__path__" in contents))
    return made


def install_as_tinycudann(dtype: torch.dtype | None = None) -> None:
    """Make `import tinycudann` find numbanet from now on, `tinycudann.modules` included.

    Programs with a copy of tinycudann's modules.py find `tinycudann_bindings._90_C` or whatever the
    number of their GPU is. Call it before the program imports tinycudann. No GPU is needed.

    Args:
        dtype: of the outputs of modules that are made without `dtype` from now on, and on a GPU of
            the parameters that the kernels read. torch.float16 is tinycudann's, for programs that
            write outputs into half tensors. None leaves it as it is, see Module.

    Raises:
        RuntimeError: another tinycudann has been imported already.
        ValueError: the dtype cannot be used.
    """
    present = sys.modules.get("tinycudann")
    if present is not None and present.__dict__.get("Module") is not modules.Module:
        raise RuntimeError(
            f"tinycudann has been imported already ({present!r}); call install_as_tinycudann() "
            "before the first import"
        )
    precisions.set_default_dtype(dtype)
    names = {**PUBLIC, "Module": modules.Module, "rtc_set_cache_dir": bindings.rtc_set_cache_dir}
    numbers = compute_capabilities()
    inner = module(
        "tinycudann.modules", **names, **PRIVATE, system_compute_capability=system_capability(),
        ALL_COMPUTE_CAPABILITIES=sorted({*ALL_COMPUTE_CAPABILITIES, *numbers}),
    )  # fmt: skip
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    # a package: its __path__ is where nothing more is found
    package = module("tinycudann", **names, modules=inner, __path__=[])
    sys.modules |= {"tinycudann": package, "tinycudann.modules": inner}
    found = {f"_{number}_C": bindings for number in numbers}
    sys.modules["tinycudann_bindings"] = module("tinycudann_bindings", __path__=[], **found)
    for name in found:
        sys.modules[f"tinycudann_bindings.{name}"] = bindings


def compute_capabilities() -> list[int]:
    """Compute capabilities for programs, such as 90: of the machine's GPUs, and of a common build.

    Some look for the largest that is not above their GPU's, in a list that ends somewhere.
    """
    return sorted({75, 80, 86, 89, 90, *of_gpus()})


def of_gpus() -> list[int]:
    """Compute capabilities of the machine's GPUs."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = map(torch.cuda.get_device_capability, range(n_gpus))
    return [10 * major + minor for major, minor in found]


def system_capability() -> int:
    """Compute capability to build for: the least of the machine's GPUs, or a common one."""
    return min(of_gpus(), default=compute_capabilities()[-1])
