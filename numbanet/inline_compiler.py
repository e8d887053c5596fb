"""Compilation of device functions only as far as their callers need.

Numba optimises every function and generates its machine code, although a device function is only
ever inlined into its caller, which is optimised as a whole afterwards. With functions nested as
deep as ours, most of the time went there: this compiler stops at LLVM's IR. Compiling the training
step of a hash grid takes 16 s of CPU time instead of 26 s (both under a profiler).

A device function that does not compile brings down the kernel that calls it, with a message that
starts at the kernel. Here the innermost one is remembered, for every target: that is where the
mistake is.
"""

import re
import threading
import uuid
from collections.abc import Sequence
from contextlib import contextmanager

from llvmlite.binding import Linkage
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.errors import NumbaError
from numba.core.registry import CPUDispatcher

from numbanet.unsigned import follow

LOOP_BODY = "__numba_parfor_gufunc"
LOOP_PARTS = (  # the names of libraries that Numba makes of each parallel loop
    "<numba.np.ufunc.wrappers._GufuncWrapper",
    "parallelgufuncwrapper",
)
SHARED = {Linkage.linkonce_odr, Linkage.weak_odr}  # of functions that other libraries have too


class _NoEnvironment:
    """Stand-in for a code generator, where a library sets the environment it runs in."""

    @staticmethod
    def set_env(name, environment):
        """No operation: an inlined function has no environment of its own."""


class InlineLibrary(JITCodeLibrary):
    """IR of one device function, to be linked into its callers; never run by itself."""

    codegen = _NoEnvironment

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._linking_libraries.clear()  # it has a copy of each
        self._finalized = True

    def _get_module_for_linking(self):
        self._ensure_finalized()
        if self._shared_module is None:
            self._shared_module = self._final_module  # of which Numba would keep a copy
            for function in self._final_module.functions:
                if not function.is_declaration and function.linkage == Linkage.external:
                    function.linkage = Linkage.linkonce_odr
        return self._shared_module

    def get_pointer_to_function(self, name):
        return 0


class InlineCompiler(Compiler):
    """Numba's compiler with an InlineLibrary as its result."""

    def define_pipelines(self):
        state = self.state
        state.flags.no_cpython_wrapper = True
        state.flags.no_cfunc_wrapper = True
        codegen = state.targetctx.codegen()
        library = InlineLibrary if state.flags.forceinline else SeparateLibrary
        state.library = library(codegen, state.func_id.func_qualname)
        return super().define_pipelines()


class SeparateLibrary(InlineLibrary):
    """Optimised IR of a kernel's callee: the body of a parallel loop, or a function."""

    def _optimize_final_module(self):
        JITCodeLibrary._optimize_final_module(self)


class KernelLibrary(JITCodeLibrary):
    """Machine code of one kernel, which calls no code but its own.

    Numba also compiles the body of a parallel loop, and each jitted function, by itself. The kernel
    has a copy, optimised once more and perhaps rounded otherwise. Were it not internal, the linker
    would take whichever it meets first: in a process that compiles, the other one.

    LLVM's engine is given the machine code, as if it came from a file: a module in its place would
    stay with the engine for as long as the process lives.

    Attributes:
        machine_code: the object file, as bytes, from when it is compiled until it is kept.
        symbols: names that are defined in it, likewise.
    """

    machine_code, symbols = b"", ()

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage in SHARED:
                function.linkage = Linkage.internal
        if any(each.name.startswith(LOOP_PARTS) for each in self._linking_libraries):
            passes, builder = self._codegen._module_pass_manager(opt=0, cost="cheap")
            passes.run(self._final_module, builder)  # the bodies of its loops are optimised
        else:
            super()._optimize_final_module()
        self._linking_libraries.clear()  # it has a copy of each

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        module = self._final_module
        values = (*module.functions, *module.global_variables)
        symbols = [each.name for each in values if not each.is_declaration]
        self._final_module = KernelLibrary(self._codegen, self.name)._final_module  # an empty one
        self.machine_code, self.symbols = self._codegen._tm.emit_object(module), symbols
        self.load(self.machine_code, symbols)

    def load(self, machine_code: bytes, symbols: Sequence[str]) -> None:
        """Have machine code run."""
        self.enable_object_caching()
        self._set_compiled_object(machine_code)
        super()._finalize_final_module()
        self._codegen._engine._defined_symbols.update(symbols)


@contextmanager
def inline_loop_bodies(codegen):
    """Stop at LLVM's IR for the bodies of parallel loops: the kernel has a copy of each."""
    create_library = codegen.create_library

    def choose_library(name, **options):
        if name.startswith(LOOP_BODY):
            return SeparateLibrary(codegen, name)
        if name.startswith(LOOP_PARTS):
            return InlineLibrary(codegen, name)
        return create_library(name, **options)

    codegen.create_library = choose_library
    try:
        yield
    finally:
        del codegen.create_library


class KernelCompiler(Compiler):
    """Numba's compiler with a KernelLibrary as its result."""

    def _compile_core(self):
        context = self.state.targetctx
        with inline_loop_bodies(context.codegen()):
            compiled = super()._compile_core()
        for function in list(context._defns):  # Numba would keep them for ever
            if getattr(function, "__name__", "").startswith(LOOP_BODY):
                context.remove_user_function(function)
        return compiled

    def define_pipelines(self):
        state = self.state
        # Numba counts functions from 1 in each process, which may load others' code.
        state.func_id.unique_id = f"{state.func_id.unique_id}_{uuid.uuid4().hex}"
        state.flags.no_cfunc_wrapper = True  # nothing but Python calls it
        state.library = KernelLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().define_pipelines()


class DeviceCodeError(Exception):
    """A device function does not compile; the message names it, its component and the reason."""


class _Failures(threading.local):
    """Device functions that failed while the current one was compiled.

    Each maps to its chain of (function, error), from the innermost to itself. Numba tries a
    function again with other types: one that succeeds is taken out, and one that fails without
    asking for what it calls, because that has failed before, keeps its longer chain.
    """

    def __init__(self):
        self.chains = {}

    def chain(self, error):
        """First of these chains; kept with the error, which Numba may raise once more."""
        chain = next(iter(self.chains.values()), None)
        if chain is not None:
            error.device_chain = chain
        return vars(error).get("device_chain", ())


_failures = _Failures()


@contextmanager
def noted_failure(function):
    """Context that records a device function if it does not compile within it."""
    callers, _failures.chains = _failures.chains, {}
    try:
        yield
    except Exception as error:
        chain = (*_failures.chain(error), (function, error))
        callers[function] = max(callers.get(function, ()), chain, key=len)
        raise
    else:
        callers.pop(function, None)
    finally:
        _failures.chains = callers


class InlineDispatcher(CPUDispatcher):
    """Device function; a call from Python compiles it in full, for that purpose alone."""

    in_full = None  # makes a dispatcher of (function, options); kernel_cache.py sets it

    def __init__(self, py_func, **options):
        options["nopython"] = True
        super().__init__(follow(py_func), targetoptions=options, pipeline_class=InlineCompiler)
        self._full = None

    def __call__(self, *arguments):
        if self._full is None:
            self._full = self.in_full(self.py_func, self.targetoptions)
        return self._full(*arguments)

    def get_call_template(self, args, kws):
        """Type a call of this function, for Numba, which compiles it."""
        with noted_failure(self.py_func):
            return super().get_call_template(args, kws)


@contextmanager
def explained_failures(kernel, target, errors=NumbaError):
    """Context that turns Numba's long errors on device code into a DeviceCodeError.

    Args:
        kernel: the Python function that is compiled.
        target: its name in the message.
        errors: what Numba raises for a kernel of which no device function failed.
    """
    _failures.chains = {}
    try:
        yield
    except Exception as error:
        chain = _failures.chain(error)
        if not chain and not isinstance(error, errors):
            raise
        raise DeviceCodeError(explanation((*chain, (kernel, error)), target)) from error


def explanation(chain, target) -> str:
    """Message of one line on the innermost function that failed, and the component it belongs to.

    The chain leads from that function to the kernel.
    """
    function, error = chain[0]
    owners = [owner for caller, _ in chain if (owner := owner_of(caller))]
    who = f"{owners[0]}: " if owners else ""
    what = "kernel" if len(chain) == 1 else "device function"
    file, line = function.__code__.co_filename, line_of(function, error)
    return (
        f"{who}{what} {function.__name__!r} ({file}:{line}) does not compile for {target}: "
        f"{complaint(error)}"
    )


def owner_of(function) -> str | None:
    """Class and method that a device function was made in, such as "OneBlob.forward"."""
    scopes = [scope for scope in function.__qualname__.split(".<locals>.") if "." in scope]
    return scopes[-1] if scopes else None


def plain_text(error) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", str(error))  # without colours


def line_of(function, error) -> int:
    found = re.search(r'^File ".*", line (\d+)', plain_text(error), re.MULTILINE)
    return int(found.group(1)) if found else function.__code__.co_firstlineno


def complaint(error) -> str:
    """First sentence of an error of Numba, without the location."""
    lines = [line.strip() for line in plain_text(error).splitlines()]
    lines = [line for line in lines if line and not re.match(r'Failed in |During: |File "', line)]
    n_lines = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:n_lines]) or type(error).__name__
