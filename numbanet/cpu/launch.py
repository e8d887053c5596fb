"""Compiling and calling the CPU's parallel kernels."""

import os
import threading

from numbanet.kernel_cache import compile_cached

# By default an OpenMP thread that has finished spins until the others have, and so takes the core
# from them where other programs run too: a training step then takes three times as long. Read when
# Numba starts its threads; whoever has set it keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Loops are parallel where they say so; each other one that Numba finds would cost a compilation
# and a call of the thread pool.
PRANGE_ONLY = {
    "comprehension": False,
    "fusion": False,
    "inplace_binop": False,
    "numpy": False,
    "prange": True,
    "reduction": False,
    "setitem": False,
    "stencil": False,
}

# Numba's default thread pool aborts the process when two Python threads use it at once.
_one_at_a_time = threading.RLock()


class ParallelKernel:
    """A function with `prange` loops, compiled at its first call and kept on disk."""

    def __init__(self, function):
        self.dispatcher = compile_cached(function, parallel=PRANGE_ONLY, fastmath=True)

    def __call__(self, *arguments):
        with _one_at_a_time:
            return self.dispatcher(*arguments)

    def __repr__(self) -> str:
        return f"<parallel kernel {self.dispatcher.py_func.__qualname__}>"
