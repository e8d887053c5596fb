"""From a Python function to PTX, on any machine: no GPU and no driver are needed.

The only module that imports numba-cuda, so that a successor has one place to go to.
"""

import contextlib
import re
import threading
import types as python_types
from collections.abc import Callable, Iterator

from numbanet.cuda import store, toolkit
from numbanet.cuda.errors import CompilationError
from numbanet.cuda.machine_code import PTX
from numbanet.kernel_cache import environment, fingerprint

NEWEST_PTX = (9, 0)  # the first version that all drivers and assemblers for CUDA 13 understand

_one_at_a_time = threading.RLock()


def compile_ptx(
    function: Callable,
    argument_types: tuple[str, ...],
    compute_capability: tuple[int, int],
    max_registers: int | None = None,
    block: int | None = None,
) -> PTX:
    """Compile a kernel; found on disk if it was compiled before, by whichever process.

    Args:
        function: what one thread does; its arguments are scalars.
        argument_types: names of Numba's types, such as "uint64", "int32" and "float32".
        max_registers: the most registers that a thread may use.
        block: the most threads that the kernel is launched with, which bounds the registers.

    Raises:
        ToolkitMissingError: numba-cuda or NVVM is not installed.
        DeviceTooOldError: the compute capability is not supported.
        CompilationError: the function is not valid device code.
    """
    toolkit.check_compute_capability(compute_capability)
    name = readable_name(function)
    key = (
        *("ptx", fingerprint(function), environment(), toolkit.compiler_version()),
        *(name, tuple(argument_types), tuple(compute_capability), max_registers, block, NEWEST_PTX),
    )
    path = store.path_of(name, "ptx", key)
    found = store.read(path)
    if found is not None:
        return PTX(found[1].decode(), name)
    text = translate(function, argument_types, compute_capability, block)
    text = lower_version(rename(drop_environments(text), name))
    text = limit_registers(text, max_registers)
    store.write(path, {"kernel": name}, text.encode())
    return PTX(text, name)


def readable_name(function: Callable) -> str:
    """The innermost part of a function's qualified name, which profilers are to show."""
    innermost = function.__qualname__.rpartition("<locals>.")[2]
    name = re.sub(r"\W", "_", innermost, flags=re.ASCII).strip("_")
    return name if name and not name[0].isdigit() else f"kernel_{name}"


def translate(function, argument_types, compute_capability, block) -> str:
    """The PTX as numba-cuda and NVVM write it."""
    toolkit.require_compiler()
    with _one_at_a_time, pretend_device(compute_capability):
        from numba import cuda
        from numba.cuda import types

        signature = types.void(*(getattr(types, name) for name in argument_types))
        try:
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
        except Exception as error:  # Numba raises all kinds for code that it cannot compile
            raise CompilationError(explain(function, error)) from error
    return text


@contextlib.contextmanager
def pretend_device(compute_capability: tuple[int, int]) -> Iterator[None]:
    """Answer numba-cuda, which asks the current GPU when it compiles a nested function."""
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    device = python_types.SimpleNamespace(compute_capability=compute_capability)
    dispatcher.get_current_device = lambda: device
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def explain(function: Callable, error: Exception) -> str:
    """What Numba complains about, in one line, and the innermost function that it is about."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Failed in", "- Resolution"))]
    complaint = lines[0] if lines else type(error).__name__
    where = re.search(r"<function (\S+) at", str(error))  # the innermost one comes first
    culprit = where[1] if where else function.__qualname__
    place = re.search(r'File "([^"]+)", line (\d+)', str(error))
    line = f" ({place[1]}, line {place[2]})" if place else ""
    return (
        f"kernel {readable_name(function)}: {culprit} does not compile for CUDA: {complaint}{line}"
    )


def drop_environments(text: str) -> str:
    """Leave out Numba's variables for each function, which nothing uses and whose names vary."""
    return re.sub(r"^\.common \.global \.align 8 \.u64 _ZN08NumbaEnv\S+;\n", "", text, flags=re.M)


def rename(text: str, name: str) -> str:
    """Give the kernel its name in place of the mangled one, and number shared arrays from 0.

    Numba counts the arrays of all kernels of the process; equal kernels are to have equal text.
    """
    (mangled,) = re.findall(r"\.entry\s+([\w$]+)", text)
    text = re.sub(rf"(?<![\w$]){re.escape(mangled)}", name, text)
    counted = dict.fromkeys(re.findall(r"\b_cudapy_[a-z]+_\d+\b", text))
    numbers = {old: f"{old.rpartition('_')[0]}_{number}" for number, old in enumerate(counted)}
    return re.sub(r"\b_cudapy_[a-z]+_\d+\b", lambda found: numbers[found[0]], text)


def lower_version(text: str) -> str:
    """Declare no newer PTX than `NEWEST_PTX`, which has all that we use."""
    found = re.search(r"^\.version (\d+)\.(\d+)$", text, re.MULTILINE)
    if found and (int(found[1]), int(found[2])) > NEWEST_PTX:
        version = ".version {}.{}".format(*NEWEST_PTX)
        return text[: found.start()] + version + text[found.end() :]
    return text


def limit_registers(text: str, max_registers: int | None) -> str:
    if max_registers is None:
        return text
    start = text.index("{", text.index(".entry"))
    return f"{text[:start]}.maxnreg {max_registers}\n{text[start:]}"
