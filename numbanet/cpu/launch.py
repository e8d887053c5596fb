"""Compilation and calls of the CPU's parallel kernels."""

import os
import threading

from numba import threading_layer

from numbanet.inline_compiler import InlineDispatcher, explained_failures
from numbanet.kernel_cache import compile_cached

# By default an OpenMP thread that has finished spins until the others have, and so takes the core
# from them where other programs run too: a training step then takes three times as long. Read when
# Numba starts its threads; whoever has set it keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Loops are parallel where they say so; each other one that Numba finds would cost a compilation
# and a call of the thread pool. (Numba empties the dictionary that it is given.)
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

# Numba's simplest thread pool aborts the process when two Python threads use it at once.
_one_at_a_time = threading.RLock()
_started_in = None  # the process whose thread pool this is


def _after_fork():
    global _one_at_a_time  # noqa: PLW0603 (another thread of the parent may have held it)
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_process():
    """Raise where GNU OpenMP would abort: its threads do not survive a fork."""
    global _started_in  # noqa: PLW0603
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid() and threading_layer() == "omp":
        raise RuntimeError(
            "numbanet was used before this process was forked, and OpenMP's threads do not survive "
            "that; start processes with multiprocessing's 'spawn' or 'forkserver' method, or set "
            "NUMBA_THREADING_LAYER=workqueue"
        )


def separate(function):
    """Declare a device function that is optimised by itself, and called instead of inlined.

    For costly work of a ParallelKernel beside its loops: the kernel is not optimised.
    """
    return InlineDispatcher(function, fastmath=True, error_model="numpy")


class ParallelKernel:
    """Kernel with `prange` loops, compiled at its first call and cached on disk.

    The bodies of the loops are optimised, each by itself; the code between them is not.
    """

    def __init__(self, function):
        self.dispatcher = compile_cached(function, parallel=dict(PRANGE_ONLY), fastmath=True)

    @property
    def function(self):
        """The function as Python has it, for kernels that inline it and run on one core."""
        return self.dispatcher.py_func

    def __call__(self, *arguments):
        with _one_at_a_time, explained_failures(self.dispatcher.py_func, "the CPU"):
            _check_process()
            return self.dispatcher(*arguments)

    def __repr__(self) -> str:
        return f"<parallel kernel {self.dispatcher.py_func.__qualname__}>"
