"""Kernels between the parts of a composed model, on rows of samples."""

from typing import Any

from numbanet.cuda.chain.row_kernels import copy_columns_kernel, row_loss_kernel
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray, address_of, empty
from numbanet.engine import Batch, LossSums
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import FLOAT_BYTES

LOSS_BLOCKS = 256  # at most
SUMS_PER_BLOCK = BLOCK // 32


class RowsOfSamples:
    """Kernels of a device, compiled on first use; they are only queued."""

    def __init__(self, device: Any):
        self._device, self._kernels = device, {}
        self._sums = empty((LOSS_BLOCKS * SUMS_PER_BLOCK,), "f4", device)

    def _kernel(self, make: Any, *key: Any) -> Kernel:
        if (make, key) not in self._kernels:
            self._kernels[make, key] = Kernel(self._device, make(*key))
        return self._kernels[make, key]

    def copy_columns(
        self, source: DeviceArray, first: int, to: DeviceArray, at: int, n: int, adds: bool
    ) -> None:
        """See AbstractTarget.copy_columns."""
        kernel = self._kernel(copy_columns_kernel, adds)
        widths = source.shape[1], to.shape[1]
        for row in range(0, len(source), MOST_ROWS):
            n_rows = min(MOST_ROWS, len(source) - row)
            places = row * widths[0] + first, row * widths[1] + at
            address, there = (
                array.address + place * FLOAT_BYTES
                for array, place in zip((source, to), places, strict=True)
            )
            kernel.over(n_rows * n, address, widths[0], there, widths[1], n_rows, n)

    def loss(
        self, loss: AbstractLoss | None, batch: Batch, outputs: DeviceArray, dl_dy: DeviceArray
    ) -> LossSums:
        """See AbstractTarget.row_loss; the sums are valid until the next call."""
        n, n_outputs = outputs.shape
        n_elements = batch.n_elements(n_outputs)
        if loss is None or n == 0:
            return LossSums(self._sums, 0, n_elements)
        kernel = self._kernel(row_loss_kernel, loss, n_outputs, batch.pdf is not None)
        n_blocks = min(-(-n // BLOCK), LOSS_BLOCKS)
        kernel(
            n_blocks,
            *(outputs.address, n, batch.targets.address, address_of(batch.pdf)),
            *(1.0 / n_elements, dl_dy.address, self._sums.address),
        )
        return LossSums(self._sums, n_blocks * SUMS_PER_BLOCK, n_elements)
