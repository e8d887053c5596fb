"""GPU architecture that code is compiled for, as a constant in the code itself."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def emit_compute_capability(builder):
    """LLVM code of the number that `compute_capability` returns."""
    integer, name = ir.IntType(32), bytearray(b"__CUDA_ARCH\0")
    text = cgutils.global_constant(
        builder, "cuda_arch", ir.Constant(ir.ArrayType(ir.IntType(8), len(name)), name)
    )
    reflect = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(integer, [ir.IntType(8).as_pointer()]),
        "__nvvm_reflect",
    )
    answer = builder.call(reflect, [builder.bitcast(text, ir.IntType(8).as_pointer())])
    return builder.sdiv(answer, integer(10))


# The first with tensor cores as we use them, and the first that adds two float32 to memory at once.
AMPERE, HOPPER = np.int32(80), np.int32(90)  # as `compute_capability` counts


def reaches(device, architecture) -> bool:
    """Whether a device has at least this architecture."""
    major, minor = device.compute_capability
    return 10 * major + minor >= architecture


def has_warpgroups(device) -> bool:
    """Whether a device has wgmma, which only compute capability 9.0 has."""
    return device.compute_capability == (9, 0)


@intrinsic
def compute_capability(typingctx):
    """Compute capability that a kernel is compiled for, e.g. 90 for 9.0; `if`s on it cost nothing.

    NVVM answers, not Numba, which keeps compiled device functions for all compute capabilities.
    """
    return types.int32(), lambda context, builder, signature, args: emit_compute_capability(builder)
