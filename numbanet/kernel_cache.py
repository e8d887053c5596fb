"""Compiled code on disk, for functions that are composed of closures.

Numba's own `cache=True` never finds such a function again: its key pickles what the closure
captures, and compiled functions pickle differently in each process. Here the key is a fingerprint
of everything that determines the machine code: the byte code and constants of the function and,
recursively, of every function it captures or names; the source of this package; the signature; the
processor; and the versions of Python, Numba and llvmlite.

Entries are written atomically and a damaged entry is compiled anew. They hold machine code, like
Numba's own cache, so the directory must belong to the user alone.
"""

import hashlib
import os
import pickle
import sys
import types as python_types
from functools import cache
from pathlib import Path

import llvmlite.ir
import numba
import numpy as np
from numba import njit
from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.misc.appdirs import user_cache_dir

from numbanet.atomic_file import replace_file

# What these modules do is known by their versions, so their attributes need no digest.
LIBRARIES = {"builtins", "cmath", "llvmlite", "math", "numba", "numpy", "operator"}


def directory() -> Path:
    """Where compiled kernels are kept: NUMBANET_CACHE_DIR, or the user's cache directory."""
    return Path(os.environ.get("NUMBANET_CACHE_DIR") or user_cache_dir("numbanet", False))


class NotCacheable(Exception):
    """A function captures something whose behaviour has no digest."""


def fingerprint(function) -> str:
    """A digest of a function's behaviour: equal in every process, for equal code and constants.

    Raises:
        NotCacheable: it captures, or names, a value of a kind that is not known here.
    """
    digests = {}  # of the functions met before, None while one is being read

    def digest(*parts) -> str:
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

    def of(value) -> str:
        if hasattr(value, "py_func") and hasattr(value, "targetoptions"):  # jitted
            options = sorted(map(repr, value.targetoptions.items()))
            return digest("dispatcher", options, of(value.py_func))
        if isinstance(value, python_types.FunctionType):
            if value not in digests:
                digests[value] = None
                digests[value] = of_function(value)
            return digests[value] or "itself"
        if isinstance(value, python_types.CodeType):
            constants = map(of, value.co_consts)
            return digest("code", value.co_code.hex(), value.co_names, *constants)
        if isinstance(value, (tuple, list)):
            return digest(type(value).__name__, *map(of, value))
        if isinstance(value, np.ndarray):
            return digest("array", value.dtype, value.shape, value.tobytes().hex())
        if value is None or isinstance(value, (int, float, complex, str, bytes, np.generic)):
            return digest(type(value).__name__, repr(value))
        if isinstance(value, (numba.types.Type, llvmlite.ir.Type)):
            return digest("type", value)
        if isinstance(value, python_types.ModuleType):
            return digest("module", value.__name__)
        if isinstance(value, (python_types.BuiltinFunctionType, np.ufunc)):
            return digest("built in", getattr(value, "__module__", None), value.__name__)
        if isinstance(value, type):
            return digest("class", value.__module__, value.__qualname__)
        if isinstance(value, frozenset):
            return digest("frozenset", sorted(map(of, value)))
        if isinstance(value, (np.dtype, slice, range)):
            return digest(type(value).__name__, value)
        if hasattr(value, "_defn"):  # an intrinsic; `environment` has the source of our own ones
            is_ours = value._defn.__module__.startswith("numbanet.")
            return of_function(value._defn, with_names=not is_ours)
        if isinstance(value, python_types.MappingProxyType | dict):
            return of(tuple(value.items()))
        raise NotCacheable(f"{type(value).__name__} {value!r:.80}")

    def of_function(function, with_names=True) -> str:
        code, scope = function.__code__, function.__globals__
        contents = [cell.cell_contents for cell in function.__closure__ or ()]
        captured = [
            (name, of(value)) for name, value in zip(code.co_freevars, contents, strict=True)
        ]
        names = referenced_names(code) if with_names else []
        named = [(name, of(scope[name])) for name in names if name in scope]
        modules = [
            scope[name] for name in names if isinstance(scope.get(name), python_types.ModuleType)
        ]
        modules += [each for each in contents if isinstance(each, python_types.ModuleType)]
        attributes = [
            (name, of(getattr(module, name)))
            for module in modules
            if module.__name__.partition(".")[0] not in LIBRARIES
            for name in names
            if hasattr(module, name)
        ]
        defaults = of(function.__defaults__), of(tuple((function.__kwdefaults__ or {}).items()))
        return digest("function", of(code), captured, named, attributes, defaults)

    return of(function)


def referenced_names(code) -> list[str]:
    """Names of globals that a code object, or a function defined in it, may use."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            names += referenced_names(constant)
    return names


@cache
def environment() -> str:
    """What all kernels of this process have in common: versions and this package's source.

    The fingerprint covers functions; the source covers what they reach otherwise, such as
    overloads. The programs in `app` and what is in `torch` are not reached by kernels.
    """
    digest = hashlib.sha256()
    for version in (sys.version, numba.__version__, llvmlite.__version__, np.__version__):
        digest.update(version.encode())
    package = Path(__file__).parent
    others = {*package.glob("app/*.py"), *package.glob("torch/*.py")}
    for path in sorted(set(package.rglob("*.py")) - others):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()


def compile_cached(function, **options):
    """Numba's njit with this cache: compiled at the first call, found again in every process."""
    dispatcher = njit(error_model="numpy", **options)(function)
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
