"""Compiled code on disk, for functions composed of closures.

Numba's own `cache=True` never finds such a function again: its key pickles what the closure
captures, and compiled functions pickle differently in each process. Here the key is the fingerprint
of what the function does, with its signature, the processor, and the versions of Python, Numba,
llvmlite and NumPy.

Numba would pickle a compiled function. Here its object code is kept with a few names, in a file of
`code_store.py`, and reading it makes no objects.
"""

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import base, compiler_lock, errors, event, postproc, sigutils
from numba.core.compiler import CompileResult, Flags
from numba.core.environment import Environment, lookup_environment
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import _reload_parfors
from numba.core.typing import context
from numba.core.typing import signature as typing_signature

from numbanet import code_store, unsigned
from numbanet.fingerprint import NotCacheable, digest, fingerprint, source_digest
from numbanet.inline_compiler import InlineDispatcher, KernelCompiler, KernelLibrary
from numbanet.lean_numba import lean
from numbanet.paused_collection import paused_collection
from numbanet.shared_functions import SharedFunctions, drop_what_was_inferred

FORMAT = 3  # of the result of taken_apart
MOST_FUNCTIONS = 300  # that stay compiled
# Of Numba's settings, those that change the code.
SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
)  # fmt: skip


@cache
def environment() -> str:
    """Digest of what all kernels of a process share: versions, and Numba's settings."""
    versions = sys.version, numba.__version__, llvmlite.__version__, np.__version__
    settings = [getattr(numba.config, name, None) for name in SETTINGS]
    return digest(*versions, *settings, source_digest(unsigned.__name__))


def compile_cached(function, **options):
    """Numba's njit with this cache: compiled at the first call, found again in every process."""
    if numba.config.DISABLE_JIT:
        return refused(function)
    return KernelDispatcher(function, options)


class KernelDispatcher(CPUDispatcher):
    """Numba's dispatcher of a function that is compiled by one process at a time."""

    def __init__(self, function, options):
        own = {"nopython": True, "boundscheck": None, "error_model": "numpy", **options}
        super().__init__(function, targetoptions=own, pipeline_class=KernelCompiler)
        self._cache = KernelCache(function, options)

    def compile(self, signature):
        """Compile for arguments of new types; called by Numba."""
        path = self._cache.path(signature, self.targetctx)
        with (
            code_store.compiling(path, self.py_func.__name__),
            compiler_lock.global_compiler_lock,
            paused_collection(),
            lean(base, context, Flags, errors, event, postproc),
            _shared_functions.used_by(type(self.typingctx)),
        ):
            return super().compile(signature)


InlineDispatcher.in_full = KernelDispatcher


def anew(function: InlineDispatcher, fingerprint: str | None) -> InlineDispatcher:
    """Copy of a device function without compiled forms."""
    return InlineDispatcher(function.py_func, **function.targetoptions)


def forget(dispatcher) -> None:
    """No operation: Numba drops a CPU function with its dispatcher."""


_shared_functions = SharedFunctions("cpu", anew, drop_what_was_inferred, forget, MOST_FUNCTIONS)


def refused(function):
    """Substitute for a kernel where Numba is told to compile nothing."""

    def refuse(*arguments):
        raise RuntimeError(
            "numbanet computes with compiled code alone, and NUMBA_DISABLE_JIT forbids to compile; "
            "unset it, or set it to 0"
        )

    refuse.py_func = function
    return refuse


class KernelCache:
    """Cache of one function, in the protocol of Numba's dispatchers."""

    def __init__(self, function, options):
        self._function = function
        self._options = sorted(map(repr, options.items()))

    @property
    def cache_path(self) -> str:
        return str(code_store.directory())

    def enable(self):
        """No operation of Numba's protocol; this cache is always on."""

    def disable(self):
        """No operation of Numba's protocol; this cache is always on."""

    def flush(self):
        """No operation of Numba's protocol; keys make stale entries impossible."""

    def path(self, signature, target_context) -> Path | None:
        """Path of the compiled function for a signature; None if it cannot be kept."""
        target_context.refresh()  # before the key, which depends on registered functions
        arguments, _ = sigutils.normalize_signature(signature)
        with suppress(NotCacheable):
            return self._path(arguments, target_context.codegen())

    def _path(self, arguments, codegen) -> Path:
        key = (
            FORMAT, fingerprint(self._function), self._options, environment(), str(arguments),
            codegen.magic_tuple(),
        )  # fmt: skip
        return code_store.path_of(self._function.__name__, "cpu", key)

    def load_overload(self, signature, target_context):
        """Compiled function for a signature, or None."""
        target_context.refresh()
        arguments, _ = sigutils.normalize_signature(signature)
        try:
            found = code_store.read(self._path(arguments, target_context.codegen()))
        except NotCacheable:
            return None
        return (
            None if found is None else restored(self._function, arguments, target_context, *found)
        )

    def save_overload(self, signature, result):
        """Store a compiled function; a cache that cannot be written is no error."""
        arguments, _ = sigutils.normalize_signature(signature)
        try:
            path = self._path(arguments, result.target_context.codegen())
            code_store.write(path, *taken_apart(result))
        except NotCacheable:
            return
        finally:
            result.library.machine_code, result.library.symbols = b"", ()  # the engine has its own


def taken_apart(result: CompileResult) -> tuple[dict, bytes]:
    """Identifying data of a compiled function, and its object code with the symbols in it.

    Raises:
        NotCacheable: it needs Python objects, or returns what has no name.
    """
    environments = [result.environment, *result._find_referenced_environments()]
    returned = result.signature.return_type
    if any(each.consts for each in environments) or result.lifted or result.objectmode:
        raise NotCacheable("it needs Python objects")
    if getattr(types, str(returned), None) != returned:
        raise NotCacheable(f"it returns {returned}")
    if not set(result.reload_init) <= {_reload_parfors}:
        raise NotCacheable("it needs more than threads to be started")
    library = result.library
    description = {
        "library": library.name,
        "symbols": list(library.symbols),
        "unique": result.fndesc.unique_name,
        "mangled": result.fndesc.mangled_name,
        "arguments": list(result.fndesc.args),
        "returns": str(returned),
        "parallel": bool(result.reload_init),
        "environments": list(dict.fromkeys(each.env_name for each in environments)),
    }
    return description, library.machine_code


def restored(function, arguments, target_context, description, content) -> CompileResult:
    """Inverse of taken_apart: the compiled function."""
    if description["parallel"]:
        _reload_parfors()
    own, *others = description["environments"]
    returned = getattr(types, description["returns"])
    descriptor = PythonFunctionDescriptor(
        native=True,
        modname=function.__module__,
        qualname=function.__qualname__,
        unique_name=description["unique"],
        doc=None,
        typemap=None,
        restype=returned,
        calltypes=None,
        args=description["arguments"],
        kws=(),
        mangler=lambda *names, **options: description["mangled"],
        argtypes=tuple(arguments),
        env_name=own,
    )
    codegen = target_context.codegen()
    library = KernelLibrary(codegen, description["library"])
    library.load(content, description["symbols"])
    environment, *nested = (environment_named(name, function) for name in (own, *others))
    entry_point = target_context.get_executable(library, descriptor, environment)
    for name, each in zip(others, nested, strict=True):
        codegen.set_env(name, each)
    return CompileResult(
        target_context=target_context,
        typing_context=target_context.typing_context,
        library=library,
        environment=environment,
        entry_point=entry_point,
        fndesc=descriptor,
        type_annotation="",
        signature=typing_signature(returned, *arguments),
        objectmode=False,
        lifted=(),
        typing_error=None,
        call_helper=None,
        metadata=None,
        reload_init=[_reload_parfors] if description["parallel"] else [],
        referenced_envs=tuple(nested),
    )


def environment_named(name: str, function) -> Environment:
    """Environment of Numba's code, for Python objects; no kernel that is kept has any."""
    found = lookup_environment(name)
    if found is None:
        found = Environment(function.__globals__)
        found.env_name = name
        Environment._memo[name] = found
    return found
