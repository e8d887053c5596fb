"""Compiled code on disk, for functions that are composed of closures.

Numba's own `cache=True` never finds such a function again: its key pickles what the closure
captures, and compiled functions pickle differently in each process. Here the key is the fingerprint
of what the function does, with its signature, the processor, and the versions of Python, Numba,
llvmlite and NumPy.

Entries are written atomically and a damaged entry is compiled anew. They hold machine code, like
Numba's own cache, so the directory must belong to the user alone.
"""

import hashlib
import os
import pickle
import sys
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba import njit
from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.misc.appdirs import user_cache_dir

from numbanet.atomic_file import replace_file
from numbanet.fingerprint import NotCacheable, digest, fingerprint
from numbanet.inline_compiler import KernelCompiler

# Of Numba's settings, those that change the code.
SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
)  # fmt: skip


def directory() -> Path:
    """Where compiled kernels are kept: NUMBANET_CACHE_DIR, or the user's cache directory."""
    return Path(os.environ.get("NUMBANET_CACHE_DIR") or user_cache_dir("numbanet", False))


@cache
def environment() -> str:
    """What all kernels of this process have in common: versions, and how Numba is set up."""
    versions = sys.version, numba.__version__, llvmlite.__version__, np.__version__
    return digest(*versions, *(getattr(numba.config, name, None) for name in SETTINGS))


def compile_cached(function, **options):
    """Numba's njit with this cache: compiled at the first call, found again in every process."""
    compiled = njit(error_model="numpy", pipeline_class=KernelCompiler, **options)
    dispatcher = compiled(function)
    dispatcher._cache = KernelCache(function, options)
    return dispatcher


class KernelCache:
    """What a Numba dispatcher expects of its cache, for one function."""

    def __init__(self, function, options):
        self._function = function
        self._options = sorted(map(repr, options.items()))

    @property
    def cache_path(self) -> str:
        return str(directory())

    def enable(self):
        """Numba's protocol; this cache is always on."""

    def disable(self):
        """Numba's protocol; this cache is always on."""

    def flush(self):
        """Numba's protocol; entries are never stale, because the key says what they are."""

    def _path(self, signature, codegen) -> Path:
        key = (
            fingerprint(self._function), self._options, environment(), str(signature),
            codegen.magic_tuple(),
        )  # fmt: skip
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return directory() / f"{self._function.__name__}-{name}.cpu"

    def load_overload(self, signature, target_context):
        """The compiled function for a signature, or None."""
        target_context.refresh()
        try:
            payload = pickle.loads(self._path(signature, target_context.codegen()).read_bytes())
            return CompileResult._rebuild(target_context, *payload)
        except Exception:  # absent, damaged, not cacheable, or of a build that this cannot read
            return None

    def save_overload(self, signature, result):
        """Keep a compiled function; a cache that cannot be written is no error."""
        try:
            path = self._path(signature, result.target_context.codegen())
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, serialize.dumps(result._reduce()))
        except (NotCacheable, OSError):
            return
