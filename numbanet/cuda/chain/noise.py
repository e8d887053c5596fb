"""Noise on outputs, on a GPU, where the state of its stream lies: so graphs can be replayed."""

from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import WARP, n_threads, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt, UInt64
from numbanet.cuda.memory.arrays import to_device
from numbanet.losses.perturbation import perturb_row
from numbanet.random import pcg32_advance
from numbanet.storage.views import float_vector, int64_vector

MOST_BLOCKS = 1024


def perturb(
    pstate: Address, sigma: Float, py: Address, pto: Address, n_rows: UInt, n_outputs: UInt
):
    """Write outputs plus noise; a thread has whole rows."""
    n = np.uint64(n_rows) * np.uint64(n_outputs)
    y, to, i = float_vector(py, n), float_vector(pto, n), thread_number()
    state = np.uint64(int64_vector(pstate, 1)[0])
    while i < n_rows:
        perturb_row(i, n_outputs, state, sigma, y, to)
        i += n_threads()


def skip_draws(pstate: Address, n: UInt64):
    """Move the stream on, when all rows have been drawn."""
    if thread_number() == 0:
        state = int64_vector(pstate, 1)
        state[0] = np.int64(pcg32_advance(np.uint64(state[0]), n))


class Noise:
    """See AbstractNoise; asking for the state waits for the device."""

    def __init__(self, device: Any, state: int):
        self._device = device
        self._state = to_device(bits_of(state), device)
        self._perturb, self._skip = Kernel(device, perturb), Kernel(device, skip_draws, WARP)

    @property
    def state(self) -> int:
        return int(self._state.numpy()[0]) % 2**64

    @state.setter
    def state(self, value: int) -> None:
        self._device.copy_to_device(self._state.address, bits_of(value))

    def perturb(self, sigma, y, to):
        n, n_outputs = y.shape
        n_blocks = max(1, min(-(-n // BLOCK), MOST_BLOCKS))
        state = self._state.address
        self._perturb(n_blocks, state, sigma, y.address, to.address, n, n_outputs)
        self._skip(1, state, n * n_outputs)


def bits_of(state: int) -> np.ndarray:
    """State as the device has it, int64 [1]."""
    return np.array([state % 2**64], np.uint64).view(np.int64)
