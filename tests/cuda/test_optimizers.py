"""Every optimizer's device functions compile for CUDA, to float32 code without calls."""

import laws
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numba import cuda
from test_laws import LAYOUT, of_kind

from numbanet.cpu import operations
from numbanet.cuda.compiler import compile_ptx
from numbanet.device import local_array
from numbanet.optimizers import Shampoo
from numbanet.storage.views import float_matrix, float_vector


def kernels_of(optimizer):
    """The launches of a step, written plainly: name -> kernel of pointers."""
    schedule, step = optimizer.schedule, optimizer.step(LAYOUT)
    summand, matrix_step = optimizer.summand(LAYOUT), optimizer.matrix_step(LAYOUT)
    n_state, n_params, n_scalars = optimizer.n_state, LAYOUT.n_params, optimizer.n_scalars
    n_matrix_state, n_matrices = optimizer.n_matrix_state, len(optimizer.matrix_ranges(LAYOUT))
    n_hyperparams = optimizer.n_hyperparams

    def scheduling(p_counters, p_hyperparams, p_scalars):
        t = np.int32(float_vector(p_counters, 1)[0])
        schedule(t, float_vector(p_hyperparams, n_hyperparams), float_vector(p_scalars, n_scalars))

    def stepping(p_weights, p_gradients, p_state, p_scalars, p_matrices):
        i = np.uint32(cuda.grid(1))
        weights, gradients = float_vector(p_weights, n_params), float_vector(p_gradients, n_params)
        shared, scalars = float_vector(p_scalars, n_scalars), local_array(n_scalars)
        for k in range(n_scalars):
            scalars[k] = shared[k]
        if i < np.uint32(n_params):
            state = float_matrix(p_state, n_state, n_params)
            matrices = float_matrix(p_matrices, n_matrix_state, n_matrices)
            weights[i] = step(i, weights[i], gradients[i], state, scalars, matrices)

    def summing(p_weights, p_gradients, p_state, p_scalars, p_sums):
        i = np.uint32(cuda.grid(1))
        weights, gradients = float_vector(p_weights, n_params), float_vector(p_gradients, n_params)
        if i < np.uint32(n_params):
            state = float_matrix(p_state, n_state, n_params)
            scalars = float_vector(p_scalars, n_scalars)
            float_vector(p_sums, n_params)[i] = summand(i, weights[i], gradients[i], state, scalars)

    def stepping_matrices(p_sums, p_matrices, p_scalars):
        m = np.uint32(cuda.grid(1))
        if m < np.uint32(n_matrices):
            matrices = float_matrix(p_matrices, n_matrix_state, n_matrices)
            scalars = float_vector(p_scalars, n_scalars)
            matrix_step(m, float_vector(p_sums, n_matrices)[m], matrices, scalars)

    kernels = {scheduling: 3, stepping: 5}
    return kernels | ({summing: 5, stepping_matrices: 3} if n_matrix_state else {})


@of_kind("optimizer")
def test_optimizers_compile_for_cuda(kind, otype, config, sizes, kernel_directory):
    optimizer = laws.create(kind, otype, config, sizes)
    for kernel, n_arguments in kernels_of(optimizer).items():
        text = compile_ptx(kernel, ("uint64",) * n_arguments, (9, 0)).text
        for forbidden in (".f64", ".local", "call"):
            assert forbidden not in text, f"{kernel.__name__}: {forbidden}"


class Recorder:
    """The CPU's operations; writes down the functions that are applied, with their arrays' axes."""

    def __init__(self):
        self.applied = {}

    def __getattr__(self, name):
        return getattr(operations, name)

    def apply(self, function, *arrays):
        self.applied[function] = [array.ndim for array in arrays]
        operations.apply(function, *arrays)


def applied_kernel(function, axes):
    """The launch of an applied function: three kinds of arguments are enough for ours."""
    vector_last = axes[-1] == 1

    def two(p_a, p_b, n):
        i, j = np.uint32(cuda.grid(1)), np.uint32(n)
        function(i, j, float_matrix(p_a, n, n), float_matrix(p_b, n, n))

    def three(p_a, p_b, p_c, n):
        i, j = np.uint32(cuda.grid(1)), np.uint32(n)
        a, b = float_matrix(p_a, n, n), float_matrix(p_b, n, n)
        if vector_last:
            function(i, j, a, b, float_vector(p_c, n))
        else:
            function(i, j, a, b, float_matrix(p_c, n, n))

    def four(p_a, p_b, p_c, p_d, n):
        i, j = np.uint32(cuda.grid(1)), np.uint32(n)
        a, b, c = float_matrix(p_a, n, n), float_matrix(p_b, n, n), float_matrix(p_c, n, n)
        function(i, j, a, b, c, float_matrix(p_d, n, n))

    return {2: two, 3: three, 4: four}[len(axes)]


@pytest.mark.parametrize("on_momentum", [True, False])
def test_what_is_applied_to_matrices_compiles_for_cuda(on_momentum, monkeypatch, kernel_directory):
    recorder = Recorder()
    monkeypatch.setattr(laws, "operations", recorder)
    optimizer = Shampoo(cg_on_momentum=on_momentum)
    laws.Steps(optimizer, LAYOUT, np.zeros(LAYOUT.n_params)).step(np.ones(LAYOUT.n_params))
    assert len(recorder.applied) >= 6
    for function, axes in recorder.applied.items():
        kernel = applied_kernel(function, axes)
        text = compile_ptx(kernel, ("uint64",) * len(axes) + ("int32",), (9, 0)).text
        for forbidden in (".f64", ".local", "call"):
            assert forbidden not in text, f"{function}: {forbidden}"
