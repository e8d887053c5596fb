"""Compiling and calling the CPU's parallel kernels."""

import threading

from numbanet.kernel_cache import compile_cached

# Numba's default thread pool aborts the process when two Python threads use it at once.
_one_at_a_time = threading.RLock()


class ParallelKernel:
    """A function with `prange` loops, compiled at its first call and kept on disk."""

    def __init__(self, function):
        self.dispatcher = compile_cached(function, parallel=True, fastmath=True)

    def __call__(self, *arguments):
        with _one_at_a_time:
            return self.dispatcher(*arguments)

    def __repr__(self) -> str:
        return f"<parallel kernel {self.dispatcher.py_func.__qualname__}>"
