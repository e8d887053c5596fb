"""Standing in for tinycudann in programs that cannot be edited."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

from numbanet.torch import bindings, modules
from numbanet.torch.evaluator import free_temporary_memory

PUBLIC = {
    "Encoding": modules.Encoding,
    "Network": modules.Network,
    "NetworkWithInputEncoding": modules.NetworkWithInputEncoding,
    "free_temporary_memory": free_temporary_memory,
    "supports_jit_fusion": bindings.supports_jit_fusion,
}


class ModuleFunction:
    """What tinycudann's modules call, and some programs besides."""

    @staticmethod
    def apply(native, x, params, loss_scale) -> torch.Tensor:
        """The padded outputs of a native module, which autograd can differentiate."""
        return native.outputs(x, params)


PRIVATE = {
    "_C": bindings,
    "_module_function": ModuleFunction,
    "_torch_precision": bindings.dtype_of,
}


def module(name: str, **contents) -> ModuleType:
    """A module of that name; what asks whether it is installed finds that it is."""
    made = ModuleType(name, "Made by numbanet.torch.install_as_tinycudann().")
    vars(made).update(contents, __spec__=ModuleSpec(name, None, is_package="__path__" in contents))
    return made


def install_as_tinycudann() -> None:
    """Let `import tinycudann` find numbanet from now on, `tinycudann.modules` included.

    Programs with a copy of tinycudann's modules.py find `tinycudann_bindings._90_C` or whatever the
    number of their GPU is. Call it before the program imports tinycudann. No GPU is needed.

    Raises:
        RuntimeError: another tinycudann has been imported already.
    """
    present = sys.modules.get("tinycudann")
    if present is not None and present.__dict__.get("Module") is not modules.Module:
        raise RuntimeError(
            f"tinycudann has been imported already ({present!r}); call install_as_tinycudann() "
            "before the first import"
        )
    names = {**PUBLIC, "Module": modules.Module, "rtc_set_cache_dir": bindings.rtc_set_cache_dir}
    inner = module("tinycudann.modules", **names, **PRIVATE)
    # a package: its __path__ is where nothing more is found
    package = module("tinycudann", **names, modules=inner, __path__=[])
    sys.modules |= {"tinycudann": package, "tinycudann.modules": inner}
    found = {f"_{number}_C": bindings for number in compute_capabilities()}
    sys.modules["tinycudann_bindings"] = module("tinycudann_bindings", __path__=[], **found)
    for name in found:
        sys.modules[f"tinycudann_bindings.{name}"] = bindings


def compute_capabilities() -> list[int]:
    """Those that programs may look for, such as 90: of the GPUs here, and of a common build.

    Some look for the largest that is not above their GPU's, in a list that ends somewhere.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = map(torch.cuda.get_device_capability, range(n_gpus))
    return sorted({75, 80, 86, 89, 90} | {10 * major + minor for major, minor in present})
