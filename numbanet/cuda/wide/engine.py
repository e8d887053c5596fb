"""Steps of wide training on a CUDA device: two kernels for each slab of samples."""

import weakref
from dataclasses import replace
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.wide.layout import UNITS, WideLayout, trains_wide
from numbanet.cuda.wide.samples_kernel import WIDE_TRAINING, wide_training_kernel
from numbanet.cuda.wide.weights_kernel import (
    N_THREADS,
    WIDE_GRADIENTS,
    gradients_shared_bytes,
    wide_gradients_kernel,
)
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES
from numbanet.target import Gradients

N_WARPS = 8  # of a block, which has a multiprocessor for itself
MOST_REGISTERS, GRADIENTS_REGISTERS = 255, 128  # of a thread
GRADIENTS_BLOCKS = 2  # of a multiprocessor
FEWEST_STAGES = 4  # of a block, beside which its reductions to global memory are cheap
STAGE = UNITS * WARP  # samples
MOST_BYTES = 1 << 30  # of memory between the two kernels


class WideTraining:
    """Called with what NetworkEngine.forward_backward takes.

    Args:
        engine: the NetworkEngine that has the model.
    """

    def __init__(self, engine: Any):
        # Not a cycle, so that the engine's memory is free as soon as nobody needs it.
        self._engine, self._device = weakref.proxy(engine), engine.device
        self.layout = WideLayout(engine.model, N_WARPS)
        if self.layout.shared_bytes > self._device.max_shared_bytes:
            self.layout = replace(self.layout, streams=True)
        self._kernels = {}
        self._units = None

    @property
    def fits(self) -> bool:
        """Whether the model can be trained so."""
        return trains_wide(self.layout, self._device.max_shared_bytes)

    def _slab(self, layout: WideLayout) -> int:
        """Samples that are taken at a time."""
        stages = max(MOST_BYTES // (UNITS * layout.unit_bytes), 1)
        return min(stages * STAGE, MOST_ROWS)

    def _memory(self, layout: WideLayout, n: int) -> int:
        """The address of units for n samples, which moves where these are more than before."""
        n_bytes = next_multiple(n, layout.whole) // WARP * layout.unit_bytes
        if self._units is None or self._units.size < n_bytes:
            self._units = None  # frees the old ones before the new ones are made
            self._engine.generation += 1
            self._units = empty((n_bytes,), np.uint8, self._device)
        return self._units.address

    def release(self) -> None:
        """Give the memory between the kernels back."""
        self._units = None

    def _training(
        self, layout: WideLayout, loss: AbstractLoss | None, options: dict[str, Any]
    ) -> Kernel:
        key = loss, *options.values()
        if key not in self._kernels:
            function = wide_training_kernel(layout, self._engine.precision, loss, **options)
            sizes = layout.n_threads, layout.shared_bytes, MOST_REGISTERS, 1
            self._kernels[key] = Kernel(self._device, function, WIDE_TRAINING, *sizes)
        return self._kernels[key]

    def _weight_gradients(self, layout: WideLayout) -> Kernel:
        if layout not in self._kernels:
            function = wide_gradients_kernel(layout, self._engine.precision)
            shared_bytes = gradients_shared_bytes(layout)
            sizes = N_THREADS, shared_bytes, GRADIENTS_REGISTERS, GRADIENTS_BLOCKS
            self._kernels[layout] = Kernel(self._device, function, WIDE_GRADIENTS, *sizes)
        return self._kernels[layout]

    def __call__(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        *,
        loss: AbstractLoss | None,
        targets: DeviceArray | None,
        pdf: DeviceArray | None,
        external: DeviceArray | None,
        gradients: Gradients | None,
        dl_dinput: DeviceArray | None,
    ) -> int:
        engine, n_all = self._engine, inputs.shape[0]
        layout = self.layout if dl_dinput is None else self.layout.to_inputs
        network, n_multiprocessors = layout.model.network, self._device.n_multiprocessors
        in_halves = gradients is not None and gradients.in_halves
        options = {
            "has_pdf": pdf is not None,
            "external": external is not None,
            "param_gradients": gradients is not None,
            "storage": engine.precision if in_halves else "float32",
            "input_gradients": dl_dinput is not None,
        }
        train, scale = self._training(layout, loss, options), engine.loss_scale
        if external is None:
            scale /= max(n_all * network.n_output_dims, 1)
        unscaled, flat, scatter = 1.0 / engine.loss_scale, 0, 0
        if gradients is not None:
            flat = gradients.flat.address
            scatter = flat + network.n_params * FLOAT_BYTES
            if in_halves:
                scatter = gradients.scatter.address
        n_slab = self._slab(layout)
        units = self._memory(layout, min(n_all, n_slab))
        n_slabs = -(-n_all // n_slab)
        sums = engine.partial_sums(n_slabs * n_multiprocessors * N_WARPS)
        n_sums = 0
        for first in range(0, n_all, n_slab):
            slab = slice(first, min(first + n_slab, n_all))
            n, n_stages = slab.stop - first, -(-(slab.stop - first) // STAGE)
            grid = min(-(-n_stages * UNITS // N_WARPS), n_multiprocessors)
            of_samples = targets, pdf, external, dl_dinput
            *given, to = (0 if each is None else each[slab].address for each in of_samples)
            train(
                grid,
                *(inputs[slab].address, n, first, n_all, params.address),
                params.address + network.n_params * params.dtype.itemsize,
                *(*given, scale, units, scatter, 1.0 if in_halves else unscaled),
                *(sums.address + n_sums * FLOAT_BYTES, to, unscaled),
            )
            n_sums += grid * N_WARPS
            if gradients is not None:
                n_matrices = len(network.shapes)
                most = max(GRADIENTS_BLOCKS * n_multiprocessors // n_matrices, 1)
                grid = min(-(-n_stages // FEWEST_STAGES), most), n_matrices
                self._weight_gradients(layout)(grid, units, n_stages, unscaled, flat)
        return n_sums if loss is not None else 0
