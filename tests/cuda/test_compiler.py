"""Compiling to PTX without a GPU."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numba import cuda

from numbanet.cuda import errors
from numbanet.cuda.toolchain import compiler, toolkit
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.device import device
from numbanet.inline_compiler import DeviceCodeError, complaint, line_of
from numbanet.storage.access import load, load_pair, reduce_one, reduce_pair, store, store_pair
from numbanet.storage.views import VECTORS, float_matrix, float_vector

TYPES = "uint64", "int32"
ARCHITECTURES = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]


def double(px, n):
    x = float_vector(px, n)
    i = np.uint32(cuda.grid(1))
    if i < np.uint32(n):
        x[i] += x[i]


def scaled_by(factor):
    factor = np.float32(factor)

    @device
    def scaled(x):
        return factor * x

    def scale(px, n):
        x = float_vector(px, n)
        i = np.uint32(cuda.grid(1))
        if i < np.uint32(n):
            x[i] = scaled(x[i])

    return scale


def all_accesses(storage):
    vector = VECTORS[storage]

    def accesses(px, n, py):
        x, y = vector(px, n), float_matrix(py, n // 8, 8)
        i = np.uint32(2 * cuda.grid(1))
        if i < np.uint32(n):
            low, high = load_pair(x, i)
            store(x, i, load(x, i) * high)
            store_pair(x, i, low, high)
            reduce_pair(x, i, low, high)
            reduce_one(x, i + np.uint32(1), low)
            store(y[i >> np.uint32(3)], i & np.uint32(7), high)

    return accesses


def test_the_text_is_that_of_one_readable_kernel(kernel_directory):
    ptx = compile_ptx(double, TYPES, (9, 0))
    assert ptx.name == "double"
    assert re.findall(r"\.entry (\S+)\(", ptx.text) == ["double"]
    assert ".param .u64 double_param_0" in ptx.text
    assert "_Z" not in ptx.text
    assert ".target sm_90" in ptx.text
    version = re.search(r"^\.version (\d+)\.(\d+)$", ptx.text, re.MULTILINE)
    assert tuple(map(int, version.groups())) <= (9, 0)


def test_names_come_from_qualified_names(kernel_directory):
    kernel = scaled_by(2)
    assert compiler.readable_name(kernel) == "scale"
    kernel.__qualname__ = "grid forward<16, 2>"
    assert compile_ptx(kernel, TYPES, (9, 0)).name == "grid_forward_16__2"
    kernel.__qualname__ = "2d"
    assert compiler.readable_name(kernel) == "kernel_2d"


def test_bounds_on_registers(kernel_directory):
    text = compile_ptx(double, TYPES, (9, 0), max_registers=40, block=256).text
    assert ".maxntid 256" in text
    assert ".maxnreg 40\n{" in text
    assert ".maxn" not in compile_ptx(double, TYPES, (9, 0)).text


@pytest.mark.parametrize("storage", VECTORS)
@pytest.mark.parametrize("capability", ARCHITECTURES, ids=lambda pair: "sm_{}{}".format(*pair))
def test_accesses_compile_to_few_instructions(storage, capability):
    text = compile_ptx(all_accesses(storage), ("uint64", "int32", "uint64"), capability).text
    body = text[text.index("{\n") :]
    for unwanted in (r"\.f64", r"\.local", r"\bcall", r"\bcvta", r"\bld\.f", r"\bst\.f", r"\bdiv"):
        assert not re.search(unwanted, body), unwanted
    has_reduction = storage == "float16" or capability >= (9, 0)
    reductions = {"float32": "v2.f32", "float16": "noftz.f16x2", "bfloat16": "noftz.bf16x2"}
    assert (f"red.global.add.{reductions[storage]}" in body) == has_reduction
    assert ("atom.global.cas.b32" in body) == (storage == "bfloat16" and not has_reduction)


def test_it_is_found_again(kernel_directory, monkeypatch):
    first = compile_ptx(double, TYPES, (9, 0))
    monkeypatch.setattr(compiler, "translate", None)
    assert compile_ptx(double, TYPES, (9, 0)) == first
    with pytest.raises(TypeError):
        compile_ptx(double, TYPES, (8, 0))


@pytest.mark.parametrize("leaves_calls", [False, True])
def test_large_functions_are_inlined_after_they_are_simplified(leaves_calls):
    """Unless that leaves a call: then they are inlined before."""
    small, large = (
        f"define i32 @{name}() alwaysinline {{{' ' * n}}}" for name, n in (("a", 9), ("b", 30_000))
    )
    asked = []

    def compile_ir(modules, **options):
        asked.append((modules, options))
        has_calls = leaves_calls and len(asked) == 1
        return b".func b\n.entry kernel" if has_calls else b".entry kernel"

    compiled = compiler.simplify_before_inlining(compile_ir)([small, large], opt=3)
    assert compiled == b".entry kernel"
    hinted = [small, large.replace("alwaysinline", "inlinehint")]
    assert asked == [(hinted, {"opt": 3}), ([small, large], {"opt": 3})][: 1 + leaves_calls]


def test_different_kernels_have_different_files(kernel_directory):
    compile_ptx(scaled_by(2), TYPES, (9, 0))
    compile_ptx(scaled_by(3), TYPES, (9, 0))
    compile_ptx(scaled_by(3), TYPES, (9, 0), block=128)
    compile_ptx(scaled_by(3), ("uint64", "uint32"), (9, 0))
    compile_ptx(scaled_by(3), TYPES, (9, 0), max_registers=32)
    assert len(list(kernel_directory.glob("scale-*.ptx"))) == 5
    for storage in VECTORS:
        compile_ptx(all_accesses(storage), ("uint64", "int32", "uint64"), (9, 0))
    assert len(list(kernel_directory.glob("accesses-*.ptx"))) == 3


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"[]\n", b"text", None])
def test_a_damaged_file_is_replaced(kernel_directory, damage):
    first = compile_ptx(double, TYPES, (9, 0))
    (path,) = kernel_directory.glob("double-*.ptx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage is None else damage)
    assert compile_ptx(double, TYPES, (9, 0)) == first
    assert path.read_bytes() == whole


def test_a_directory_that_cannot_be_written_is_no_error(kernel_directory, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", os.devnull)
    assert "double" in compile_ptx(double, TYPES, (9, 0)).text


def test_another_process_finds_it(kernel_directory):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_compiler\n"
        "from numbanet.cuda.toolchain import compiler\n"
        "compiler.translate = None\n"
        "kernel = test_compiler.scaled_by(2)\n"
        "print(test_compiler.compile_ptx(kernel, test_compiler.TYPES, (9, 0)).text)"
    )
    ptx = compile_ptx(scaled_by(2), TYPES, (9, 0))
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(here)],
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == ptx.text.strip(), done.stderr


def reverse(px, n):
    x = float_vector(px, n)
    first, second = cuda.shared.array(32, np.float32), cuda.shared.array(32, np.float32)
    t = np.uint32(cuda.threadIdx.x)
    first[t], second[t] = x[t], x[t] * x[t]
    cuda.syncthreads()
    x[t] = first[np.uint32(31) - t] + second[t ^ np.uint32(1)]


@pytest.mark.parametrize("function", [double, reverse])
def test_the_same_text_in_any_order_of_compilation(kernel_directory, function):
    first = compile_ptx(function, TYPES, (9, 0))
    for path in kernel_directory.glob("*.ptx"):
        path.unlink()
    compile_ptx(scaled_by(5), TYPES, (9, 0))
    assert compile_ptx(function, TYPES, (9, 0)) == first


def test_numba_asks_the_real_device_again_afterwards(kernel_directory):
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    compile_ptx(scaled_by(7), TYPES, (9, 0))
    with pytest.raises(DeviceCodeError):
        compile_ptx(calls_invalid, ("float32",), (9, 0))
    assert dispatcher.get_current_device is before


@device
def invalid(x):
    return x.no_such_attribute


@device
def around(x):
    return invalid(x) + x


def calls_invalid(x):
    around(x)


def returns_something(x):
    return x


def test_an_error_names_the_innermost_function(kernel_directory):
    message = (
        r"^device function 'invalid' \(.*test_compiler\.py:\d+\) does not compile for CUDA: "
        r"Unknown attribute 'no_such_attribute' of type float32$"
    )
    with pytest.raises(DeviceCodeError, match=message) as raised:
        compile_ptx(calls_invalid, ("float32",), (9, 0))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("function", "types"), [(returns_something, ("float32",)), (double, ("uint64",))]
)
def test_other_errors_name_the_kernel(kernel_directory, function, types):
    message = rf"^kernel '{function.__name__}' \(.*py:\d+\) does not compile for CUDA: ."
    with pytest.raises(DeviceCodeError, match=message):
        compile_ptx(function, types, (9, 0))


def test_colours_in_numba_s_messages_are_left_out():
    message = (
        "\x1b[1mFailed in cuda mode pipeline (step: nopython frontend)\n\x1b[0m"
        "\x1b[1m\x1b[31;1mUnknown attribute 'x'\x1b[0m\n\x1b[1mFile \"a.py\", line 7:\x1b[0m\n"
    )
    error = ValueError(message)
    assert complaint(error) == "Unknown attribute 'x'"
    assert line_of(invalid.py_func, error) == 7


def captures(unknown):
    def kernel(px):
        float_vector(px, 1)[0] = np.float32(len(unknown))

    return kernel


def test_what_has_no_digest_is_compiled_each_time(kernel_directory):
    kernel = captures(types.SimpleNamespace())
    with pytest.raises(DeviceCodeError, match=r"'kernel'.*SimpleNamespace"):
        compile_ptx(kernel, ("uint64",), (9, 0))
    assert not list(kernel_directory.iterdir())


def test_a_compute_capability_that_is_too_old():
    with pytest.raises(errors.DeviceTooOldError, match=r"7\.0 is not supported.*7\.5"):
        compile_ptx(double, TYPES, (7, 0))


@pytest.mark.parametrize("package", ["numba_cuda", "cuda.bindings"])
def test_a_missing_package(monkeypatch, package):
    find_spec = toolkit.importlib.util.find_spec
    monkeypatch.setattr(toolkit, "compiler_version", toolkit.compiler_version.__wrapped__)
    monkeypatch.setattr(
        toolkit.importlib.util,
        "find_spec",
        lambda name: None if name == package else find_spec(name),
    )
    with pytest.raises(errors.ToolkitMissingError, match=r'pip install "numbanet\[cu1[23]\]"'):
        compile_ptx(double, TYPES, (9, 0))


def test_a_missing_library(monkeypatch):
    monkeypatch.setattr(toolkit, "compiler_version", toolkit.compiler_version.__wrapped__)

    def library(name):
        raise toolkit.missing(f"the library {name} of NVIDIA's CUDA toolkit")

    monkeypatch.setattr(toolkit, "library", library)
    with pytest.raises(errors.ToolkitMissingError, match=r"nvvm .*pip install"):
        compile_ptx(double, TYPES, (9, 0))
