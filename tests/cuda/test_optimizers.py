"""Every optimizer's device functions compile for CUDA, to float32 code without calls.

And what a step of all parameters reads and writes.
"""

import laws
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numba import cuda
from test_laws import LAYOUT, of_kind

from emulator.device import EmulatedDevice
from numbanet.cpu import operations
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.optimizer.kernels import N_CONTROL, RUNS, optimize_kernel
from numbanet.cuda.optimizer.parameter_groups import MOST_ROWS, group_size
from numbanet.cuda.target import CudaTarget
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.device import local_array
from numbanet.optimizers import EMA, Adam, Average, Shampoo
from numbanet.optimizers.base import ParamLayout
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


# What a step of all parameters reads and writes

N_MATRIX, N_TABLE = 1024, 3072
LARGE = ParamLayout(N_MATRIX + N_TABLE, ((32, 32),))
ODD = ParamLayout(LAYOUT.n_params - 1, LAYOUT.shapes)


class Optimized:
    """Parameters, some with a gradient, after one step."""

    def __init__(self, optimizer, layout, gradient, runs=True):
        self.device = device = EmulatedDevice(racecheck=None)
        target = CudaTarget(device, "float16")
        n, self.n_threads = layout.n_params, layout.n_params // group_size(optimizer, layout)
        rng = np.random.default_rng(0)
        self.before = rng.normal(size=n).astype(np.float32)
        parameters = target.parameters(self.before, layout.n_matrix_params)
        gradients = target.gradients(n, layout.n_matrix_params)
        target.copy_from_host(gradients.flat, gradient)
        state = target.from_host(optimizer.initial_state(self.before))
        scalars = target.from_host(np.full(optimizer.n_scalars, 0.1, np.float32))
        control = target.from_host(np.zeros(N_CONTROL, np.uint32))
        control_host = np.zeros(N_CONTROL, np.uint32)
        control_host[RUNS] = runs
        device.copy_to_device(control.address, control_host)
        device.counters = {}
        kernel = Kernel(device, optimize_kernel(optimizer, layout, "float16"))
        arrays = parameters.master, gradients.flat, state, scalars, scalars, parameters.copy
        addresses = (array.address for array in (*arrays, control))
        kernel.over(self.n_threads, *addresses, n)
        (self.counters,) = device.counters.values()
        self.weights, self.copy = parameters.master.numpy(), parameters.copy.numpy()
        self.gradients, self.state = gradients.flat.numpy(), state.numpy()

    def requests(self, opcode):
        """How often a thread of a full warp executes it."""
        lines = self.counters.lines.items()
        found = sum(each["requests"] for (*_, text), each in lines if text.startswith(opcode))
        return found * 32 / self.n_threads

    @property
    def sectors(self):
        """Of 32 bytes, loaded and stored, without those of scalars and control."""
        n_others = 2 * self.n_threads // 32
        return self.counters.global_load_sectors - n_others, self.counters.global_store_sectors


def gradient_of(layout):
    return np.random.default_rng(1).normal(size=layout.n_params).astype(np.float32)


@pytest.mark.parametrize("optimizer", [Adam(), EMA()], ids=["Adam", "EMA"])
def test_accesses_are_of_16_bytes(optimizer):
    """One for four numbers of the weights, the gradients and each row of the state."""
    found, n_rows = Optimized(optimizer, LARGE, gradient_of(LARGE)), optimizer.n_state
    assert found.requests("ld.global.v4") == 2 + n_rows
    assert found.requests("st.global.v4") == 1 + n_rows
    assert found.requests("st.global.v2") == 1  # four halves
    assert found.requests("ld.global") - found.requests("ld.global.v4") <= 1 + optimizer.n_scalars
    assert found.requests("st.global") == 2 + n_rows
    n = LARGE.n_params
    assert found.counters.global_store_sectors * 32 == n * (4 * (1 + n_rows) + 2)
    np.testing.assert_array_equal(found.copy, found.weights.astype(np.float16))
    assert (found.weights != found.before).all()


def test_parameters_of_a_table_without_gradient_cost_reading_it():
    """Of those that have none, nothing else is read, and nothing written."""
    gradient = gradient_of(LARGE)
    gradient[N_MATRIX:] = 0
    gradient[-1] = 1
    found, dense = (Optimized(Adam(), LARGE, each) for each in (gradient, gradient_of(LARGE)))
    np.testing.assert_array_equal(found.weights[N_MATRIX:-1], found.before[N_MATRIX:-1])
    assert not found.state[:, N_MATRIX:-1].any()
    assert found.weights[-1] != found.before[-1]
    assert found.state[:, -1].all()
    (loads, stores), (all_loads, all_stores) = found.sectors, dense.sectors
    assert loads * 5 <= all_loads * (N_MATRIX * 5 + N_TABLE) / LARGE.n_params + 8 * 5
    assert stores <= all_stores * N_MATRIX / LARGE.n_params + 8


def test_gradients_are_zeroed_where_the_step_does_not_run():
    found = Optimized(Adam(), LARGE, gradient_of(LARGE), runs=False)
    assert not found.gradients.any()
    np.testing.assert_array_equal(found.weights, found.before)
    assert found.counters.global_store_sectors * 32 == 4 * LARGE.n_params


def test_four_to_a_thread_where_that_serves():
    assert group_size(Adam(), LAYOUT) == group_size(EMA(), LAYOUT) == 4
    assert group_size(Adam(), ODD) == 1  # rows of its state are not aligned
    assert group_size(Adam(), ParamLayout(60, ((3, 3),))) == 1  # nor are its arrays
    assert group_size(EMA(nested=Average()), LAYOUT) == 1  # reads one of 128 rows
    nested = Adam()
    for n_state in range(nested.n_state, MOST_ROWS + 2):
        assert nested.n_state == n_state
        assert group_size(nested, LAYOUT) == (4 if n_state <= MOST_ROWS else 1)
        nested = EMA(nested=nested)


def test_one_to_a_thread_computes_the_same():
    gradient = gradient_of(LAYOUT)
    four, one = Optimized(Adam(), LAYOUT, gradient), Optimized(Adam(), ODD, gradient[:-1])
    np.testing.assert_array_equal(one.weights, four.weights[:-1])
    np.testing.assert_array_equal(one.state, four.state[:, :-1])
    np.testing.assert_array_equal(one.copy, four.copy[:-1])
