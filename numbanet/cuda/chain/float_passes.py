"""Launches of the kernels for all layers of a narrow network in float32."""

from collections.abc import Callable, Iterable
from typing import Any

from numbanet.cuda.chain.float_network import (
    MAX_REGISTERS,
    N_THREADS,
    Pass,
    backward_kernel,
    forward_kernel,
    takes_whole,
)
from numbanet.cuda.chain.float_rows import WARP_SAMPLES
from numbanet.cuda.chain.layers import Layers
from numbanet.cuda.chain.matrix_product import FLOATS_ON_TENSOR_CORES
from numbanet.cuda.launch.kernel import Kernel
from numbanet.networks.base import AbstractMLP


class FloatPasses:
    """Passes over the layers of a network, forward and backward, each in one kernel.

    The kernels are compiled when they are first needed.
    """

    def __init__(self, device: Any, network: AbstractMLP):
        self._device, self._network = device, network
        self._kernels = {}

    def _queue(self, key, make, plan: Pass, n: int, params: int, layers: Layers) -> None:
        if key not in self._kernels:
            sizes = N_THREADS, plan.shared_bytes, MAX_REGISTERS, 1
            self._kernels[key] = Kernel(self._device, make(self._network, *key), *sizes)
        grid = min(-(-n // WARP_SAMPLES), self._device.n_multiprocessors)
        self._kernels[key](grid, params, layers.memory.address, n, layers.pitch)

    def forward(self, n: int, params: int, layers: Layers) -> None:
        """Write the values of all layers, from those of the features."""
        self._queue((), forward_kernel, Pass(self._network), n, params, layers)

    def backward(self, n: int, params: int, layers: Layers, to_features: bool) -> None:
        """Write the gradients of all layers' values, from those of the output's sums."""
        plan = Pass(self._network, backward=True)
        self._queue((to_features,), backward_kernel, plan, n, params, layers)


def float_passes(device: Any, network: AbstractMLP, precision: str) -> FloatPasses | None:
    """Passes in one kernel each, or None where a device, precision or network has none."""
    is_fast = precision == "float32" and device.compute_capability in FLOATS_ON_TENSOR_CORES
    if is_fast and takes_whole(network, device.max_shared_bytes):
        return FloatPasses(device, network)
    return None


def in_turn(works: Iterable[Callable]) -> None:
    """Queue kernels one after the other, as one of the branches of CudaDevice.in_parallel."""
    for work in works:
        work()
