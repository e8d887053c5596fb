"""Training of wide networks on a CUDA device: two kernels for each slab of samples."""

from dataclasses import replace

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.workspace import Kept, PassOptions, Workspace
from numbanet.cuda.wide.layout import UNITS, WideLayout, trains_wide
from numbanet.cuda.wide.samples_kernel import wide_training_kernel
from numbanet.cuda.wide.weights_kernel import (
    N_THREADS,
    gradients_shared_bytes,
    wide_gradients_kernel,
)
from numbanet.engine import Batch, Gradients
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES

N_WARPS = 8  # of a block, which has a multiprocessor for itself
MOST_REGISTERS, GRADIENTS_REGISTERS = 255, 128  # of a thread
GRADIENTS_BLOCKS = 2  # of a multiprocessor
FEWEST_STAGES = 4  # of a block, beside which its reductions to global memory are cheap
STAGE = UNITS * WARP  # samples
MOST_BYTES = 1 << 30  # of memory between the two kernels


class Wide:
    """Engine that trains a model with two kernels for each slab of samples."""

    def __init__(self, workspace: Workspace):
        self._workspace, self._device = workspace, workspace.device
        self.layout = WideLayout(workspace.model, N_WARPS)
        if self.layout.shared_bytes > self._device.max_shared_bytes:
            self.layout = replace(self.layout, streams=True)
        self._kernels = {}
        self._units = None

    @property
    def can_train(self) -> bool:
        """Whether the model supports wide training."""
        return trains_wide(self.layout, self._device.max_shared_bytes)

    def _slab(self, layout: WideLayout) -> int:
        """Samples per slab."""
        stages = max(MOST_BYTES // (UNITS * layout.unit_bytes), 1)
        return min(stages * STAGE, MOST_ROWS)

    def _memory(self, layout: WideLayout, n: int) -> int:
        """Address of units for n samples, which moves when more are needed."""
        n_bytes = next_multiple(n, layout.whole) // WARP * layout.unit_bytes
        if self._units is None or self._units.size < n_bytes:
            self._units = None  # frees the old ones before the new ones are made
            self._workspace.rooms.generation += 1
            self._units = empty((n_bytes,), np.uint8, self._device)
        return self._units.address

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self._units = None

    def _training(
        self, layout: WideLayout, loss: AbstractLoss | None, options: PassOptions
    ) -> Kernel:
        key = loss, options
        if key not in self._kernels:
            function = wide_training_kernel(layout, self._workspace.precision, loss, options)
            sizes = layout.n_threads, layout.shared_bytes, MOST_REGISTERS, 1
            self._kernels[key] = Kernel(self._device, function, *sizes)
        return self._kernels[key]

    def _weight_gradients(self, layout: WideLayout) -> Kernel:
        if layout not in self._kernels:
            function = wide_gradients_kernel(layout, self._workspace.precision)
            shared_bytes = gradients_shared_bytes(layout)
            sizes = N_THREADS, shared_bytes, GRADIENTS_REGISTERS, GRADIENTS_BLOCKS
            self._kernels[layout] = Kernel(self._device, function, *sizes)
        return self._kernels[layout]

    def forward_backward(
        self,
        batch: Batch,
        params: DeviceArray,
        loss: AbstractLoss | None,
        gradients: Gradients | None,
        dl_dinput: DeviceArray | None,
        kept: Kept | None = None,
    ) -> int:
        """See Fused.forward_backward."""
        own, n_all = self._workspace, len(batch)
        n_blocks = own.n_multiprocessors
        layout = self.layout if dl_dinput is None else self.layout.to_inputs
        train = self._training(layout, loss, own.options(batch, gradients, dl_dinput, kept))
        scatter, factor = own.encoding_gradients(gradients, kept)
        n_slab = self._slab(layout)
        units = self._memory(layout, min(n_all, n_slab))
        sums = own.partial_sums(-(-n_all // n_slab) * n_blocks * N_WARPS)
        n_sums = 0
        for first in range(0, n_all, n_slab):
            slab = slice(first, min(first + n_slab, n_all))
            n, n_stages = slab.stop - first, -(-(slab.stop - first) // STAGE)
            grid = min(-(-n_stages * UNITS // N_WARPS), n_blocks)
            of_samples = batch.targets, batch.pdf, batch.external_dl_dy, dl_dinput
            *given, to = (0 if each is None else each[slab].address for each in of_samples)
            train(
                grid,
                *(batch.inputs[slab].address, n, first, n_all, params.address),
                *(own.encoding_params(params), *given, own.scale(batch), units, scatter, factor),
                0 if kept is None else kept.largest,
                *(sums.address + n_sums * FLOAT_BYTES, to, own.unscaled),
            )
            n_sums += grid * N_WARPS
            if gradients is not None:
                self._add_up(layout, units, n_stages, gradients)
        return n_sums if loss is not None else 0

    def _add_up(self, layout: WideLayout, units: int, n_stages: int, gradients: Gradients) -> None:
        """Add the gradients of the weights of n_stages stages."""
        n_matrices = len(layout.model.network.shapes)
        own, n_params = self._workspace, layout.model.network.n_params
        most = max(GRADIENTS_BLOCKS * own.n_multiprocessors // n_matrices, 1)
        n_slots, flat = min(-(-n_stages // FEWEST_STAGES), most), gradients.flat.address
        own.slots.add_waiting()  # of the slab before, in the same memory
        to = own.slots.zeros(n_slots, n_params) if own.deterministic else flat
        slot = n_params if own.deterministic else 0
        kernel = self._weight_gradients(layout)
        kernel((n_slots, n_matrices), units, n_stages, own.unscaled, to, slot)
        if own.deterministic:
            own.slots.waiting = flat, n_slots, n_params
