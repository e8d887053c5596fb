"""Passes of a model as one kernel each, where its layout allows it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from numbanet.architecture import has_warpgroups
from numbanet.cuda.block.layout import fits
from numbanet.cuda.block.samples import rounds_float32
from numbanet.cuda.fused.inference import inference_kernel
from numbanet.cuda.fused.shapes import WARPS, FusedShape, inference_shape, training_shape
from numbanet.cuda.fused.training import training_kernel
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, address_of
from numbanet.cuda.memory.workspace import Kept, PassOptions, Workspace
from numbanet.engine import Batch, Gradients
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import STORAGES

MOST_NUMBERS = 2**31  # of all inputs or outputs, whose places have 32 bits


class Fused:
    """Engine that evaluates and trains a model with one kernel per pass."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        model, most = workspace.model, workspace.device.max_shared_bytes
        self.inference_shape = inference_shape(model, most)
        self.training_shape = training_shape(model, most, has_warpgroups(workspace.device))
        self._can_train = fits(self.training_shape.layout, most)
        self._most_samples = MOST_NUMBERS // max(model.encoding.n_dims, model.network.n_output_dims)
        # Most samples of an inference; -1 where even none are too many.
        self.most_inferred = self._most_samples if fits(self.inference_shape.layout, most) else -1
        self._kernels = {}

    @cached_property
    def rounds_float32(self) -> bool:
        """Whether inference may read parameters in float32, which it rounds itself."""
        own, layout = self._workspace, self.inference_shape.layout
        return not layout.streams and rounds_float32(own.model.encoding, own.precision)

    def can_train(self, n: int, keeps: bool = False) -> bool:
        """Whether it can train with batches of n; deep with grids only if features are kept."""
        is_deep = self.training_shape.layout.n_warps > WARPS
        scatters = self._workspace.model.encoding.n_params > 0 and not keeps
        return self._can_train and n <= self._most_samples and not (is_deep and scatters)

    def _kernel(self, key, make: Callable, shape: FusedShape) -> Kernel:
        if key not in self._kernels:
            sizes = shape.layout.n_threads, shape.layout.shared_bytes
            self._kernels[key] = Kernel(
                self._workspace.device, make(), *sizes, shape.max_registers, shape.n_started
            )
        return self._kernels[key]

    def _grid(self, shape: FusedShape, n: int) -> int:
        most = shape.n_started * self._workspace.n_multiprocessors
        return min(-(-n // shape.layout.group_threads), most)

    def _tiles(self, shape: FusedShape, n: int) -> tuple[int, int]:
        """Blocks of an inference, and samples that each takes at a time."""
        layout, most = shape.layout, shape.n_started * self._workspace.n_multiprocessors
        if layout.streams or n > most * layout.n_threads:  # all warps wait for each other, or work
            return self._grid(shape, n), layout.n_threads
        rows = WARP * max(-(-n // (most * WARP)), 1)
        return -(-n // rows), rows

    def inference(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        outputs: DeviceArray,
        kept: Kept | None = None,
    ) -> None:
        """See Chain.inference; given features are read from `kept`.

        Parameters may be float32 if it `rounds_float32`.
        """
        n = inputs.shape[0]
        kernel, grid, rows = self.for_inference(n, params.dtype, outputs.dtype, kept)
        addresses = params.address, self._workspace.encoding_params(params), outputs.address
        kernel(grid, inputs.address, n, *addresses, kept.address if kept else 0, rows)

    def for_inference(
        self, n: int, read_as: np.dtype, dtype: np.dtype, kept: Kept | None = None
    ) -> tuple[Kernel, int, int]:
        """Kernel for n samples, its number of blocks, and samples that each takes at a time.

        Args:
            read_as: of the parameters.
            dtype: of the outputs.
            kept: see `inference`.
        """
        shape = self.inference_shape
        key = (read_as, dtype) if kept is None else (read_as, dtype, kept.given)
        kernel = self._kernels.get(key)
        if kernel is None:
            given = (
                PassOptions() if kept is None else PassOptions(kept=kept.pairs, given=kept.given)
            )
            options = self._workspace.precision, STORAGES[dtype], given, STORAGES[read_as]
            kernel = self._kernel(key, lambda: inference_kernel(shape.layout, *options), shape)
        return kernel, *self._tiles(shape, n)

    def forward_backward(
        self,
        batch: Batch,
        params: DeviceArray,
        loss: AbstractLoss | None,
        gradients: Gradients | None,
        dl_dinput: DeviceArray | None,
        kept: Kept | None = None,
    ) -> int:
        """See Chain.forward_backward; gradients of features are written to `kept`, if given."""
        own, shape, n = self._workspace, self.training_shape, len(batch)
        # Beside tables it is faster, too, if blocks do not add to the same numbers.
        has_slots = gradients is not None and (own.deterministic or kept is not None)
        options = replace(own.options(batch, gradients, dl_dinput, kept), in_slots=has_slots)
        if gradients is None or kept is not None:  # the block has nothing to add up
            shape = replace(shape, layout=replace(shape.layout, n_private=0))
        kernel = self._kernel(
            (loss, options),
            lambda: training_kernel(shape.layout, own.precision, loss, options),
            shape,
        )
        grid, n_params = self._grid(shape, n), own.model.network.n_params
        n_sums = grid * shape.layout.n_threads // WARP
        scatter, factor = own.encoding_gradients(gradients, kept)
        flat = address_of(None if gradients is None else gradients.flat)
        # Each group of a block has a slot, if there are samples for it.
        n_slots = min(grid * shape.layout.n_groups, -(-n // shape.layout.group_threads))
        if has_slots:
            own.slots.waiting = flat, n_slots, n_params
        kernel(
            grid,
            *(batch.inputs.address, n, params.address, own.encoding_params(params)),
            *map(address_of, (batch.targets, batch.pdf, batch.external_dl_dy)),
            *(own.scale(batch), own.unscaled),
            own.slots.rows(n_slots, n_params) if has_slots else flat,
            *(scatter, factor, kept.largest if kept else 0),
            *(own.partial_sums(n_sums).address, address_of(dl_dinput)),
            n_params if has_slots else 0,
        )
        return n_sums if loss is not None else 0
