"""LLVM IR of device functions on disk: a new kernel types and lowers only what is new in it.

Its other functions stand in files, of which each has the IR of one function, and of functions of
Numba's own that it calls. The device functions that it calls have files too, and it names those.
Numba numbers functions in each process; here a symbol contains the digest of its file's key, or a
random number, so that files of several processes fit together.
"""

import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakValueDictionary

from numbanet import code_store
from numbanet.cuda.toolchain import toolkit, type_names
from numbanet.cuda.toolchain.type_names import described, type_of
from numbanet.fingerprint import NotCacheable, source_digest
from numbanet.kernel_cache import environment
from numbanet.lean_numba import replaced

FORMAT = 1
COMPILER = "numbanet.cuda.toolchain.compiler"  # imports this module
DIGITS = 16  # of the number in a symbol
NUMBERS = re.compile(rf"(?<=[v$])[0-9a-f]{{{DIGITS}}}(?=[B\"])")
NUMBERED_BY_NUMBA = re.compile(r"^define .*B\d+v\d{1,9}B", re.MULTILINE)  # in one process alone
NEEDS = ("_linking_files", "_setup_functions", "_teardown_functions", "referenced_objects",
         "needs_cudadevrt", "use_cooperative")  # fmt: skip

_libraries = WeakValueDictionary()  # of functions that have a path: what is compiled or read


class LinkedModule(str):
    """Text of a module with device functions, in place of NVVM's module."""

    functions = ()  # whose linkage is to be changed


def random_numbers() -> Iterator[str]:
    """Numbers of functions that no other process uses, for any number of threads."""
    return iter(lambda: uuid.uuid4().hex[:DIGITS], None)


def length(text: str) -> int:
    """Length of IR, as if functions had small numbers."""
    return len(NUMBERS.sub("100", text))


def found_on_disk(compile_device: Callable, compute_capability: tuple[int, int]) -> Callable:
    """Make numba-cuda's dispatchers look for a function on disk before they compile it.

    Args:
        compile_device: their method (dispatcher, argument types) that compiles.
        compute_capability: of the GPU to compile for.
    """
    from numba.cuda.core.bytecode import FunctionIdentity

    def found_or_compiled(self, args, return_type=None):
        if args in self.overloads:
            return self.overloads[args]
        path = path_of(self, args, compute_capability)
        if path is None:
            return compile_device(self, args, return_type)
        library = library_at(path)
        if library is not None and library.returned is not None:
            self.overloads[args] = found = result(self.py_func, args, library)
            found.target_context.insert_user_function(found.entry_point, found.fndesc, [library])
            return found
        number = path.stem[-DIGITS:]
        with replaced(FunctionIdentity, "_unique_ids", chain([number], random_numbers())):
            found = compile_device(self, args, return_type)
        if number in found.fndesc.mangled_name:
            library = found.library
            library.path, library.symbol = path, found.fndesc.mangled_name
            library.inlined, library.returned = found.fndesc.inline, found.signature.return_type
            _libraries[path] = library
        return found

    return found_or_compiled


def path_of(dispatcher, args, compute_capability) -> Path | None:
    """Path of a device function for argument types; None if it cannot be kept."""
    function, digest = dispatcher.py_func, getattr(dispatcher, "fingerprint", None)
    if digest is None:
        return None
    with suppress(NotCacheable):
        key = (
            *("ir", FORMAT, digest, function.__module__, function.__qualname__),
            *([described(each) for each in args], tuple(compute_capability)),
            *(environment(), toolkit.compiler_version()),
            *map(source_digest, (COMPILER, __name__, type_names.__name__)),
        )
        return code_store.path_of(function.__name__, "ir", key)


def result(function, args, library):
    """Numba's record of a function that was compiled, for those that call it."""
    from numba.cuda.compiler import cuda_compile_result
    from numba.cuda.core.callconv import CUDACallConv
    from numba.cuda.core.funcdesc import PythonFunctionDescriptor
    from numba.cuda.descriptor import cuda_target
    from numba.cuda.typing import signature
    from numba.cuda.utils import pysignature

    context = cuda_target.target_context
    descriptor = PythonFunctionDescriptor(
        native=True,
        modname=function.__module__,
        qualname=function.__qualname__,
        unique_name=library.symbol,
        doc="",
        typemap=None,
        restype=library.returned,
        calltypes=None,
        args=tuple(pysignature(function).parameters),
        kws=(),
        mangler=lambda *names, **options: library.symbol,
        argtypes=tuple(args),
        inline=library.inlined,
        call_conv=CUDACallConv(context),
        abi_info={},
    )
    return cuda_compile_result(
        typing_context=cuda_target.typing_context,
        target_context=context,
        type_annotation=SimpleNamespace(),
        library=library,
        signature=signature(library.returned, *args),
        fndesc=descriptor,
        metadata={},
    )


def library_at(path: Path, callers: tuple[Path, ...] = ()):
    """Library with the IR of a function and of all that it calls; None unless all is on disk."""
    if path in _libraries:
        return _libraries[path]
    found = None if path in callers else code_store.read(path)
    if found is None:
        return None
    description, content = found
    try:
        texts = unpacked(content)
        calls = description["calls"]
        check_calls(calls, len(texts))
        returned = description["returns"] and type_of(description["returns"])
        symbol, inlined = str(description["symbol"]), bool(description["inlined"])
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error):
        return None
    libraries = list(map(library_of, texts))
    for library, called in zip(libraries, calls, strict=True):
        for each in called:
            near = isinstance(each, int)
            linked = libraries[each] if near else library_at(path.with_name(each), (*callers, path))
            if linked is None:
                return None
            library._linking_libraries.add(linked)
    library = libraries[0]
    library.path, library.symbol = path, symbol
    library.inlined, library.returned = inlined, returned
    _libraries[path] = library
    return library


def unpacked(content: bytes) -> list[str]:
    reader = zlib.decompressobj()
    texts = reader.decompress(content, code_store.MOST_ENTRY_BYTES).decode().split("\0")
    if not reader.eof:
        raise ValueError("incomplete, or too large")
    return texts


def check_calls(calls: list[list[int | str]], n: int) -> None:
    """Check that n texts call files beside this one, by name, and later texts, by number.

    Raises:
        ValueError: one calls something else.
        TypeError: it is no list of lists.
    """
    if len(calls) != n:
        raise ValueError(f"calls of {len(calls)} functions, not {n}")
    for caller, called in enumerate(calls):
        for each in called:
            if type(each) is int and caller < each < n:
                continue
            if not each.endswith(".ir") or not code_store.ENTRY.fullmatch(each):
                raise ValueError(f"no function: {each!r:.80}")


def library_of(text: str):
    from numba.cuda.codegen import CUDACodeLibrary
    from numba.cuda.descriptor import cuda_target

    library = CUDACodeLibrary(cuda_target.target_context.codegen(), "")
    library._module = LinkedModule(text)
    library._finalized = True
    return library


def keep(library) -> None:
    """Store a function that was compiled, if all that belongs to it is text."""
    path = getattr(library, "path", None)
    if path is None:
        return
    with suppress(NotCacheable):
        calls, texts = parts(library)
        try:
            returns = described(library.returned)
            type_of(returns)
        except (NotCacheable, ValueError):
            returns = None  # others can call it, but it is compiled where its type is asked for
        description = {
            "symbol": library.symbol, "inlined": library.inlined, "returns": returns,
            "calls": calls,
        }  # fmt: skip
        content = zlib.compress("\0".join(texts).encode(), 1)
        code_store.write(path, description, content, lasting=False)


def parts(library) -> tuple[list[list[int | str]], list[str]]:
    """Calls of a function, and of those without a file that belong to it; their IR.

    The function is the first, and each stands before those that it calls: NVVM links a function
    only where it was asked for before.

    Raises:
        NotCacheable: it needs more, or contains symbols that another process may use otherwise.
    """
    found = []

    def visit(each):
        for called in each._linking_libraries:
            if not hasattr(called, "path") and called not in found:
                visit(called)
        found.append(each)

    visit(library)
    found.reverse()
    texts = [str(each._module) for each in found]
    if any(getattr(each, name) for each in found for name in NEEDS):
        raise NotCacheable("it needs more than IR")
    if any("_cudapy_smem" in text or NUMBERED_BY_NUMBA.search(text) for text in texts):
        raise NotCacheable("its symbols are numbered in this process")
    places = {each: place for place, each in enumerate(found)}
    calls = [
        [places.get(called) or called.path.name for called in each._linking_libraries]
        for each in found
    ]
    return calls, texts
