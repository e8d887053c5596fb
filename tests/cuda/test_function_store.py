"""Device functions for CUDA on disk: what is found there, what is not, and that PTX is the same."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet import code_store
from numbanet.device import device
from numbanet.fingerprint import NotCacheable
from numbanet.shared_functions import SharedFunctions

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numba.cuda import types
from numba.cuda.compiler import CUDACompiler

from numbanet.cuda.toolchain import compiler, function_store, type_names

ROOT = Path(__file__).parents[2]
Pair = namedtuple("Pair", ["first", "second"])


def kernel_of(factor, offset):
    """A kernel whose device functions are body, and what it calls: scaled, which calls moved."""
    from numbanet.storage.views import float_vector

    factor, offset = np.float32(factor), np.float32(offset)

    @device
    def moved(x):
        return x + offset

    @device
    def scaled(x):
        return factor * moved(x), moved(x)

    @device
    def body(x):
        x[0], x[1] = scaled(x[0])

    def scale(px, n):
        body(float_vector(px, n))

    return scale


@pytest.fixture
def process(monkeypatch, kernel_directory):
    """Function (factor, offset) -> PTX and the compiled functions, as in a new process."""

    def compiled(*numbers, capability=(9, 0), make=kernel_of):
        old = compiler._shared_functions
        functions = SharedFunctions("cuda", old._make, old._finish, old._free, 100)
        monkeypatch.setattr(compiler, "_shared_functions", functions)
        monkeypatch.setattr(function_store, "_libraries", WeakValueDictionary())
        names, compile_extra = [], CUDACompiler.compile_extra
        with monkeypatch.context() as patched:

            def noted(self, function):
                names.append(function.__name__)
                return compile_extra(self, function)

            patched.setattr(CUDACompiler, "compile_extra", noted)
            text = compiler.compiled(make(*numbers), ("uint64", "int32"), capability, None, 128)
        for dispatcher in functions._dispatchers.values():
            functions._free(dispatcher)
        return text, names

    return compiled


def files(folder, name):
    return sorted(folder.glob(f"{name}-*.ir"))


def test_what_is_on_disk_is_not_compiled(process, kernel_directory):
    first, names = process(2, 3)
    assert {"scale", "body", "scaled", "moved"} <= set(names)
    assert process(2, 3) == (first, ["scale"])
    for path in kernel_directory.iterdir():
        path.unlink()
    assert process(2, 3)[0] == first


def test_what_is_new_is_compiled(process):
    process(2, 3)
    text, names = process(4, 3)
    assert sorted(names) == ["body", "scale", "scaled"]
    assert process(4, 3) == (text, ["scale"])
    assert process(2, 3)[1] == ["scale"]
    assert "body" in process(2, 3, capability=(8, 0))[1]


def test_another_process_finds_it(process):
    """Its symbols do not depend on how many functions a process compiled before."""
    here = Path(__file__).parent
    script = (
        "from test_function_store import *\n"
        "compiler.compiled(kernel_of(5, 6), ('uint64', 'int32'), (9, 0), None, 128)\n"
        "print(compiler.compiled(kernel_of(2, 3), ('uint64', 'int32'), (9, 0), None, 128))\n"
    )
    paths = [str(ROOT), str(here), str(here.parent)]
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    text, names = process(2, 3)
    assert names == ["scale"]
    assert found.stdout.strip() == text.strip()


@pytest.mark.parametrize("name", ["body", "scaled", "moved"])
def test_what_is_missing_is_compiled_again(process, kernel_directory, name):
    first, _ = process(2, 3)
    (path,) = files(kernel_directory, name)
    path.unlink()
    text, names = process(2, 3)
    assert text == first
    assert name in names
    assert path.exists()


def test_files_that_make_no_sense_count_as_absent(process, kernel_directory):
    first, _ = process(2, 3)
    (body,), (scaled,) = (files(kernel_directory, name) for name in ("body", "scaled"))
    description, content = code_store.read(scaled)
    damages = [
        ({}, content),
        ([], content),
        ({**description, "calls": None}, content),
        ({**description, "calls": []}, content),
        ({**description, "calls": [[0]]}, content),
        ({**description, "calls": [[1]]}, content),
        ({**description, "calls": [[None]]}, content),
        ({**description, "calls": [[f"../{scaled.name}"]]}, content),
        ({**description, "calls": [["scaled.ptx"]]}, content),
        ({**description, "calls": [[body.name]]}, content),  # which calls this one
        ({**description, "returns": "pyobject"}, content),
        ({**description, "returns": ["Tuple"]}, content),
        (description, content[:-1]),
        (description, b""),
    ]
    for damage in damages:
        code_store.write(scaled, *damage)
        body.unlink(missing_ok=True)  # else nobody looks at the other one
        text, names = process(2, 3)
        assert text == first
        assert "scaled" in names, damage[0]
        assert code_store.read(scaled) == (description, content)
    scaled.write_bytes(scaled.read_bytes()[:100])
    assert process(2, 3)[0] == first


def test_a_type_that_has_no_name_is_inferred_again(process):
    """Functions that call one with such a result are found all the same."""

    def make(factor):
        from numbanet.storage.views import float_vector

        factor = np.float32(factor)

        @device
        def pair(x):
            return Pair(x, factor * x)

        @device
        def body(x):
            x[0] = pair(x[0]).second

        def scale(px, n):
            body(float_vector(px, n))

        return scale

    text, names = process(2, make=make)
    assert "pair" in names
    assert process(2, make=make) == (text, ["scale"])


def test_what_is_numbered_in_a_process_is_not_kept(process, kernel_directory):
    from numba import cuda

    def make(offset):
        from numbanet.storage.views import float_vector

        @device
        def body(x):
            shared = cuda.shared.array(4, types.float32)
            shared[0] = x[0]
            x[1] = shared[offset]

        def scale(px, n):
            body(float_vector(px, n))

        return scale

    text, _ = process(2, make=make)
    assert not files(kernel_directory, "body")
    assert process(2, make=make)[0] == text


SCALARS = st.sampled_from(sorted(type_names.SCALARS)).map(lambda name: getattr(types, name))
ARRAYS = st.builds(
    types.Array, SCALARS.filter(lambda kind: kind != types.none), st.integers(1, 3),
    st.sampled_from("CFA"), st.booleans(), aligned=st.booleans(),
)  # fmt: skip
LITERALS = (st.integers(-9, 9) | st.booleans()).map(types.literal)
KINDS = st.recursive(
    SCALARS | ARRAYS | LITERALS,
    lambda parts: st.lists(parts, min_size=1, max_size=4).map(types.Tuple),
)


@given(KINDS, KINDS)
def test_types_are_told_apart_and_found_again(left, right):
    one, other = type_names.described(left), type_names.described(right)
    assert (one == other and repr(one) == repr(other)) == (left == right)
    assert type_names.type_of(one) == left


@pytest.mark.parametrize("kind", [types.pyobject, types.unicode_type, types.Optional(types.int32)])
def test_other_types_have_no_name(kind):
    with pytest.raises(NotCacheable):
        type_names.described(kind)


def test_lengths_do_not_depend_on_numbers():
    number = next(function_store.random_numbers())
    name = '@"_ZN4here5scaleB{}v{}B40c8tJTIeFIjxB2IKSgI4Ef"'
    assert function_store.length(name.format(17, number)) == len(name.format(17, 123))
