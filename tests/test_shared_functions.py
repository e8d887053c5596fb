"""Device functions that several kernels have: compiled once, and freed when others come."""

import gc

import numpy as np
import pytest
from laws import compilations

from numbanet import kernel_cache
from numbanet.device import device
from numbanet.inline_compiler import InlineLibrary
from numbanet.kernel_cache import compile_cached
from numbanet.shared_functions import SharedFunctions

MOST = 3


def kernel_of(factor, offset):
    """A kernel x <- factor (x + offset); both steps are functions that it captures."""

    @device
    def scaled(x):
        return factor * x

    @device
    def moved(x):
        return x + offset

    def scale(x):
        x[0] = scaled(moved(x[0]))

    return scale


@pytest.fixture
def functions(monkeypatch, tmp_path):
    """The CPU's shared functions, of which few stay; nothing is found on disk."""
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    old = kernel_cache._shared_functions
    few = SharedFunctions("cpu", old._make, old._finish, old._free, MOST)
    monkeypatch.setattr(kernel_cache, "_shared_functions", few)


def n_alive(kind):
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


def value(kernel, x):
    array = np.array([x], np.float32)
    compile_cached(kernel)(array)
    return array[0]


def test_equal_functions_are_compiled_once(functions):
    two, three, four = (np.float32(k) for k in (2, 3, 4))
    assert value(kernel_of(two, three), 1) == 8
    with compilations() as names:
        assert value(kernel_of(two, four), 1) == 10
    assert set(names) == {"moved", "scale"}


def test_functions_that_no_kernel_asked_for_are_freed(functions):
    """Of kernels that are gone, libraries stay for the functions below the limit alone."""

    before = n_alive(InlineLibrary)
    for k in range(2 * MOST):
        assert value(kernel_of(np.float32(k), np.float32(-k)), 1) == k * (1 - k)
    assert n_alive(InlineLibrary) <= before + MOST


def test_a_module_is_linked_behind_all_that_call_it():
    from numbanet.cuda.toolchain.compiler import last_of_each

    assert last_of_each(["kernel", "a", "c", "b", "a", "c", "d"]) == ["kernel", "b", "a", "c", "d"]


@pytest.fixture
def cuda_functions(monkeypatch, tmp_path):
    pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")
    from numbanet.cuda.toolchain import compiler

    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    old = compiler._shared_functions
    few = SharedFunctions("cuda", old._make, old._finish, old._free, MOST)
    monkeypatch.setattr(compiler, "_shared_functions", few)
    yield few
    for dispatcher in few._dispatchers.values():
        few._free(dispatcher)


def cuda_kernel_of(factor, offset):
    from numbanet.storage.views import float_vector

    body = device(kernel_of(np.float32(factor), np.float32(offset)))

    def scale(px, n):
        body(float_vector(px, n))

    return scale


def test_on_cuda_too(cuda_functions):
    """Nor does a text depend on what was compiled before it."""
    from numba.cuda.codegen import CUDACodeLibrary

    from numbanet.cuda.toolchain.compiler import compiled

    def text(*numbers):
        return compiled(cuda_kernel_of(*numbers), ("uint64", "int32"), (9, 0), None, 128)

    first = text(2, 3)
    before, n_functions = n_alive(CUDACodeLibrary), len(cuda_functions)
    assert text(2, 3) == first
    assert len(cuda_functions) == n_functions
    texts = [text(k, -k) for k in range(2 * MOST)]
    assert len(set(texts)) == 2 * MOST
    assert n_alive(CUDACodeLibrary) <= before + MOST
    assert text(2, 3) == first
