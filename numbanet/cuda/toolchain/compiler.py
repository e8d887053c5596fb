"""Compiler from Python functions to PTX; it needs no GPU and no driver.

This folder alone imports numba-cuda, so that a successor has one place to go to.
"""

import contextlib
import inspect
import re
import threading
import types as python_types
from collections.abc import Callable, Iterator

from numbanet import code_store
from numbanet.cuda.toolchain import function_store, toolkit
from numbanet.cuda.toolchain.function_store import LinkedModule
from numbanet.cuda.toolchain.machine_code import PTX
from numbanet.fingerprint import NotCacheable, fingerprint, source_digest
from numbanet.inline_compiler import explained_failures, noted_failure
from numbanet.kernel_cache import environment
from numbanet.lean_numba import lean, replaced
from numbanet.paused_collection import paused_collection
from numbanet.shared_functions import SharedFunctions, drop_what_was_inferred
from numbanet.unsigned import teach

SMALL_FUNCTION = 20_000  # characters of LLVM IR
NEWEST_PTX = (9, 0)  # the first version that all drivers and assemblers for CUDA 13 understand
DEVICE_FUNCTION = {"device": True, "debug": False, "opt": True}  # options of numba-cuda
MOST_FUNCTIONS = 2000  # that stay compiled

_one_at_a_time = threading.RLock()


def compile_ptx(
    function: Callable,
    argument_types: tuple[str, ...],
    compute_capability: tuple[int, int],
    max_registers: int | None = None,
    block: int | None = None,
) -> PTX:
    """Compile a kernel, unless it is found on disk.

    Args:
        function: the work of one thread.
        argument_types: names of Numba's types, such as "uint64", "float32" and "float32[:, ::1]".
        max_registers: the most registers that a thread may use.
        block: the most threads that the kernel is launched with, which bounds the registers.

    Raises:
        ToolkitMissingError: numba-cuda or NVVM is not installed.
        DeviceTooOldError: the compute capability is not supported.
        DeviceCodeError: the function, or one that it calls, is not valid device code.
    """
    toolkit.check_compute_capability(compute_capability)
    name = readable_name(function)
    try:
        digest = fingerprint(function, "cuda")
    except NotCacheable:  # it captures a value that does not compile, or has no digest
        with code_store.compiling(None, name):
            text = compiled(function, argument_types, compute_capability, max_registers, block)
        return PTX(text, name)
    key = (
        *("ptx", digest, *map(source_digest, (__name__, function_store.__name__))),
        *(environment(), toolkit.compiler_version()),
        *(name, tuple(argument_types), tuple(compute_capability), max_registers, block, NEWEST_PTX),
    )
    path = code_store.path_of(name, "ptx", key)
    with code_store.compiling(path, name):
        found = code_store.read(path)
        if found is not None:
            return PTX(found[1].decode(), name)
        text = compiled(function, argument_types, compute_capability, max_registers, block)
        code_store.write(path, {"kernel": name}, text.encode())
    return PTX(text, name)


def compiled(function, argument_types, compute_capability, max_registers, block) -> str:
    """PTX of a kernel under its readable name."""
    text = translate(function, argument_types, compute_capability, block)
    text = rename(drop_environments(text), readable_name(function))
    text = name_architecture(lower_version(text))
    return limit_registers(text, max_registers)


def readable_name(function: Callable) -> str:
    """Innermost part of a function's qualified name, as profilers show it."""
    innermost = function.__qualname__.rpartition("<locals>.")[2]
    name = re.sub(r"\W", "_", innermost, flags=re.ASCII).strip("_")
    return name if name and not name[0].isdigit() else f"kernel_{name}"


def translate(function, argument_types, compute_capability, block) -> str:
    """PTX as numba-cuda and NVVM write it."""
    toolkit.require_compiler()
    with _one_at_a_time, paused_collection(), pretend_device(compute_capability):
        from numba import cuda
        from numba.cuda import types

        teach_unsigned()
        arguments = [numba_type(types, name) for name in argument_types]
        if function.__code__.co_flags & inspect.CO_VARARGS:
            arguments = [types.Tuple(arguments)]
        signature = types.void(*arguments)
        # Numba raises all kinds for code that it cannot compile.
        with explained_failures(function, "CUDA", Exception):
            text, _ = cuda.compile(
                function,
                signature,
                device=False,
                fastmath=True,
                cc=compute_capability,
                abi="numba",
                output="ptx",
                launch_bounds=block,
            )
    return text


def teach_unsigned() -> None:
    """Make numba-cuda, where installed, compute as unsigned.py does, also in users' kernels."""
    with contextlib.suppress(ImportError):
        from numba.cuda.core import rewrites

        teach(rewrites)


def numba_type(types, name: str):
    """Type with a name such as "float32", or "float32[:, ::1]" for an array in C order."""
    element, bracket, dims = name.partition("[")
    element = getattr(types, element)
    return types.Array(element, dims.count(",") + 1, "C") if bracket else element


@contextlib.contextmanager
def pretend_device(compute_capability: tuple[int, int]) -> Iterator[None]:
    """Replace the device that numba-cuda asks for when it compiles nested functions.

    It asks the current GPU, where there may be none; a function that fails is to be remembered; one
    that equals another, or is found on disk, is not compiled again; large functions are to be
    simplified before they are inlined.
    """
    from numba.cuda import codegen, dispatcher
    from numba.cuda.compiler import CUDAFlags
    from numba.cuda.core import base, errors, event, postproc
    from numba.cuda.core.bytecode import FunctionIdentity
    from numba.cuda.cudadrv import nvvm
    from numba.cuda.target import CUDATypingContext
    from numba.cuda.typing import context

    dispatchers = dispatcher.CUDADispatcher
    looked_at = dispatchers.get_call_template
    found_or_compiled = function_store.found_on_disk(dispatchers.compile_device, compute_capability)
    device = python_types.SimpleNamespace(compute_capability=compute_capability)

    def get_call_template(self, args, kws):
        with noted_failure(self.py_func):
            return looked_at(self, args, kws)

    with (
        replaced(dispatcher, "get_current_device", lambda: device),
        replaced(dispatchers, "get_call_template", get_call_template),
        replaced(dispatchers, "compile_device", found_or_compiled),
        replaced(FunctionIdentity, "_unique_ids", function_store.random_numbers()),
        replaced(nvvm, "compile_ir", simplify_before_inlining(nvvm.compile_ir)),
        replaced(codegen.CUDACodeLibrary, "modules", property(linked_modules)),
        lean(base, context, CUDAFlags, errors, event, postproc),
        _shared_functions.used_by(CUDATypingContext),
    ):
        yield


def linked_modules(library) -> list:
    """Modules of a function and of what it calls, each once.

    Numba lists one behind each module that calls it, and writes out each time it is listed.
    """
    linked = (each for called in library._linking_libraries for each in called.modules)
    return last_of_each([library._module, *linked])


def last_of_each(modules: list) -> list:
    """Modules without repetitions.

    LLVM links a device function where it was asked for before, so the last mention counts.
    """
    return list(dict.fromkeys(reversed(modules)))[::-1]


def dispatcher_of(function, fingerprint):
    from numba.cuda.dispatcher import CUDADispatcher

    dispatcher = CUDADispatcher(function.py_func, {**function.targetoptions, **DEVICE_FUNCTION})
    dispatcher.fingerprint = fingerprint
    return dispatcher


def keep_text(dispatcher) -> None:
    """Drop the compiled forms of a device function other than its text, which is also stored."""
    drop_what_was_inferred(dispatcher)
    for compiled in dispatcher.overloads.values():
        library = compiled.library
        if isinstance(library._module, LinkedModule):
            continue
        for function in library._module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"  # as where it is called
        library._module = LinkedModule(library._module)
        function_store.keep(library)


def forget(dispatcher) -> None:
    for compiled in dispatcher.overloads.values():
        compiled.target_context.remove_user_function(compiled.entry_point)


_shared_functions = SharedFunctions("cuda", dispatcher_of, keep_text, forget, MOST_FUNCTIONS)


def simplify_before_inlining(compile_ir: Callable) -> Callable:
    """Make NVVM simplify large functions before it inlines them, where it inlines everything.

    It inlines `alwaysinline` functions before it simplifies anything: a large function
    that is called in ten places is then simplified ten times. Functions that are inlined because it
    pays are simplified first, which halves the time that NVVM takes for the fused kernels. The
    small ones stay as they are, for without that the fused kernels have 1 % more instructions.
    """

    def compile_simplified(modules, **options):
        text = compile_ir(list(map(hinted, modules)), **options)
        return compile_ir(modules, **options) if b".func" in text else text

    def hinted(module):
        small = function_store.length(module) <= SMALL_FUNCTION
        return module if small else module.replace(" alwaysinline", " inlinehint")

    return compile_simplified


def drop_environments(text: str) -> str:
    """Remove Numba's variables for each function, which nothing uses and whose names vary."""
    return re.sub(r"^\.common \.global \.align 8 \.u64 _ZN08NumbaEnv\S+;\n", "", text, flags=re.M)


def rename(text: str, name: str) -> str:
    """Replace the kernel's mangled name, and number shared arrays from 0.

    Numba counts the arrays of all kernels of the process; equal kernels are to have equal text.
    """
    (mangled,) = re.findall(r"\.entry\s+([\w$]+)", text)
    text = re.sub(rf"(?<![\w$]){re.escape(mangled)}", name, text)
    counted = dict.fromkeys(re.findall(r"\b_cudapy_[a-z]+_\d+\b", text))
    numbers = {old: f"{old.rpartition('_')[0]}_{number}" for number, old in enumerate(counted)}
    return re.sub(r"\b_cudapy_[a-z]+_\d+\b", lambda found: numbers[found[0]], text)


def lower_version(text: str) -> str:
    """Declare no newer PTX than `NEWEST_PTX`, which has every feature in use."""
    found = re.search(r"^\.version (\d+)\.(\d+)$", text, re.MULTILINE)
    if found and (int(found[1]), int(found[2])) > NEWEST_PTX:
        version = ".version {}.{}".format(*NEWEST_PTX)
        return text[: found.start()] + version + text[found.end() :]
    return text


def name_architecture(text: str) -> str:
    """Declare the target of instructions that no later architecture has, if there are some."""
    if "wgmma." not in text:
        return text
    return re.sub(r"^\.target sm_90\b", ".target sm_90a", text, flags=re.MULTILINE)


def limit_registers(text: str, max_registers: int | None) -> str:
    if max_registers is None:
        return text
    start = text.index("{", text.index(".entry"))
    return f"{text[:start]}.maxnreg {max_registers}\n{text[start:]}"
