"""An encoded network on a CUDA device in one kernel per pass, where its layout allows that."""

from dataclasses import replace
from typing import Any

from numbanet.cuda import fused_kernels as kernels
from numbanet.cuda.arrays import DeviceArray, address_of, empty
from numbanet.cuda.driver import RESERVED
from numbanet.cuda.fused_layout import MOST_NARROW, FusedLayout, fits
from numbanet.cuda.kernel import Kernel, exclusive
from numbanet.cuda.network_engine import NetworkEngine
from numbanet.cuda.threads import WARP
from numbanet.cuda.wide_engine import WideTraining
from numbanet.encoded_network import EncodedNetwork
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import ITEM_SIZES
from numbanet.target import Gradients

MOST_NUMBERS = 2**31  # of all inputs or outputs, whose places have 32 bits
AMPERE = (8, 0)  # the first with these matrix instructions
WARPS = 4  # of a group
# Inference: warps of a block, blocks of a multiprocessor, and whether matrices of weights come one
# after the other; the first of these that fits.
INFERENCE_SHAPES = (
    *((8, 2, False), (4, 2, False), (8, 1, False)),
    *((n_warps, 1, True) for n_warps in range(8, 0, -1)),
)
FEW_WARPS = 8  # of a multiprocessor: enough for gathers, which find more in the first-level cache
TRAINING_GROUPS = 2  # of a multiprocessor, in one block where they fit
REGISTERS, MOST_REGISTERS = 65536, 255  # of a multiprocessor, and of a thread
COARSEST = 16 * 1024  # bytes of private gradients, which pay most
FIRST_LEVEL_CACHE = 64 * 1024  # bytes for gathers, of the memory that it has with shared memory


class FusedEngine(NetworkEngine):
    """Evaluates an encoded network, and trains it in one kernel, or else in two, where possible.

    What no fused kernel can do is left to the chain of kernels. Or it raises ValueError, where
    fused kernels are required.
    """

    def __init__(self, device: Any, model: EncodedNetwork, precision: str, required: bool = False):
        super().__init__(device, model, precision)
        self._required = required
        self.wide = WideTraining(self)
        self._fused = {}
        most = device.max_shared_bytes
        half = (most + RESERVED) // 2 - RESERVED
        for n_warps, n_blocks, streams in INFERENCE_SHAPES:
            layout = FusedLayout(model, n_warps, trains=False, streams=streams)
            self._inference_layout, self._inference_blocks = layout, n_blocks
            has_registers = n_blocks * n_warps <= FEW_WARPS or max(layout.widths) <= MOST_NARROW
            if has_registers and fits(layout, most if n_blocks == 1 else half):
                break
        self._started_blocks = n_blocks
        if model.encoding.n_params:
            self._started_blocks = min(n_blocks, FEW_WARPS // n_warps)
        # In one block they share its weights and private gradients, of which more fit then.
        layout = FusedLayout(model, WARPS, trains=True)
        together = replace(layout, n_groups=TRAINING_GROUPS)
        if together.shared_bytes <= most:
            wanted = min(together.shared_bytes + COARSEST, most)
            self._training_layout = together.with_private(max(most - FIRST_LEVEL_CACHE, wanted))
            self._training_blocks = 1
        else:
            self._training_blocks = 2 if layout.shared_bytes <= half else 1
            per_block = half if self._training_blocks == 2 else most
            self._training_layout = layout.with_private(per_block)
        self._fuses_inference = fits(self._inference_layout, most)
        self._fuses_training = fits(self._training_layout, most)
        self._most_samples = MOST_NUMBERS // max(model.encoding.n_dims, model.network.n_output_dims)

    def _require(self, can: bool, what: str) -> None:
        if self._required and not can:
            raise ValueError(
                f"fused=True: {what} of this model cannot be fused; fused=None takes the chain then"
            )

    def _kernel(self, key, make, types, layout, n_blocks, n_started) -> Kernel:
        """With registers for n_blocks on a multiprocessor, and shared memory for those started."""
        if key not in self._fused:
            n_threads, shared_bytes = layout.n_threads, layout.shared_bytes
            most = min(REGISTERS // (n_blocks * n_threads) // 8 * 8, MOST_REGISTERS)
            self._fused[key] = Kernel(
                self.device, make(), types, n_threads, shared_bytes, most, n_started
            )
        return self._fused[key]

    def _grid(self, layout: FusedLayout, n: int, per_multiprocessor: int) -> int:
        most = per_multiprocessor * self.device.n_multiprocessors
        return min(-(-n // layout.group_threads), most)

    @exclusive
    def inference(self, inputs: DeviceArray, params: DeviceArray) -> DeviceArray:
        layout = self._inference_layout
        n = inputs.shape[0]
        can = self._fuses_inference and n <= self._most_samples
        self._require(can, "inference")
        if not can:
            return super().inference(inputs, params)
        outputs = empty((n, self.model.network.n_output_dims), "f4", self.device)
        kernel = self._kernel(
            "inference",
            lambda: kernels.inference_kernel(layout, self.precision),
            kernels.INFERENCE,
            layout,
            self._inference_blocks,
            self._started_blocks,
        )
        weights, encoding = params.address, self._encoding_params(params)
        grid = self._grid(layout, n, self._started_blocks)
        kernel(grid, inputs.address, n, weights, encoding, outputs.address)
        return outputs

    @exclusive
    def forward_backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        *,
        loss: AbstractLoss | None = None,
        targets: DeviceArray | None = None,
        pdf: DeviceArray | None = None,
        external: DeviceArray | None = None,
        gradients: Gradients | None = None,
        dl_dinput: DeviceArray | None = None,
    ) -> int:
        layout, n = self._training_layout, inputs.shape[0]
        n_blocks = self._training_blocks
        fused = self._fuses_training and n <= self._most_samples
        wide = not fused and self.wide.fits
        self._require(fused or wide, "a step")
        in_halves = gradients is not None and gradients.in_halves
        given = {
            "loss": loss,
            "targets": targets,
            "pdf": pdf,
            "external": external,
            "gradients": gradients,
            "dl_dinput": dl_dinput,
        }
        if wide:
            n_sums = self.wide(inputs, params, **given)
            if in_halves:
                self._collect(gradients)
            return n_sums
        if not fused:
            return super().forward_backward(inputs, params, **given)
        network = self.model.network
        options = {
            "has_pdf": pdf is not None,
            "external": external is not None,
            "param_gradients": gradients is not None,
            "storage": self.precision if in_halves else "float32",
            "input_gradients": dl_dinput is not None,
        }
        # Without gradients of parameters there is nothing to keep in the block.
        used = layout if gradients is not None else replace(layout, n_private=0)
        kernel = self._kernel(
            (loss, *options.values()),
            lambda: kernels.training_kernel(used, self.precision, loss, **options),
            kernels.TRAINING,
            used,
            n_blocks,
            n_blocks,
        )
        grid = self._grid(layout, n, n_blocks)
        n_sums = grid * layout.n_threads // WARP
        sums = self.partial_sums(n_sums)
        unscaled = 1.0 / self.loss_scale
        flat = scatter = 0
        if gradients is not None:
            flat = gradients.flat.address
            scatter = flat + network.n_params * ITEM_SIZES["float32"]
            if in_halves:
                scatter = gradients.scatter.address
        scale = self.loss_scale / max(n * network.n_output_dims, 1) if loss is not None else 1.0
        kernel(
            grid,
            *(inputs.address, n, params.address, self._encoding_params(params)),
            *(address_of(targets), address_of(pdf), address_of(external)),
            *(self.loss_scale if external is not None else scale, unscaled),
            *(flat, scatter, 1.0 if in_halves else unscaled, sums.address, address_of(dl_dinput)),
        )
        if in_halves:
            self._collect(gradients)
        return n_sums if loss is not None else 0
