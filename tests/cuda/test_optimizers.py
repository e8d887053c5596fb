"""What a step of all parameters reads and writes; test_gates.py has what its code must not."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_laws import LAYOUT

from emulator.device import EmulatedDevice
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.optimizer.kernels import N_CONTROL, RUNS, optimize_kernel
from numbanet.cuda.optimizer.parameter_groups import MOST_ROWS, group_size
from numbanet.cuda.target import CudaTarget
from numbanet.optimizers import EMA, Adam, Average
from numbanet.optimizers.base import ParamLayout

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
    assert group_size(Adam(), ParamLayout(60, ((4, 4),), boundary=21)) == 1  # with biases
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
