"""An encoded network on a CUDA device in one kernel per pass, where its layout allows that."""

from dataclasses import replace
from typing import Any

from numbanet.cuda.block.layout import fits
from numbanet.cuda.chain.engine import NetworkEngine
from numbanet.cuda.fused import kernels
from numbanet.cuda.fused.shapes import FusedShape, inference_shape, training_shape
from numbanet.cuda.launch.kernel import Kernel, exclusive
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, address_of, empty
from numbanet.cuda.wide.engine import WideTraining
from numbanet.encoded_network import EncodedNetwork
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import FLOAT_BYTES
from numbanet.target import Gradients

MOST_NUMBERS = 2**31  # of all inputs or outputs, whose places have 32 bits


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
        self._inference_shape = inference_shape(model, most)
        self._training_shape = training_shape(model, most)
        self._fuses_inference = fits(self._inference_shape.layout, most)
        self._fuses_training = fits(self._training_shape.layout, most)
        self._most_samples = MOST_NUMBERS // max(model.encoding.n_dims, model.network.n_output_dims)

    def _require(self, can: bool, what: str) -> None:
        if self._required and not can:
            raise ValueError(
                f"fused=True: {what} of this model cannot be fused; fused=None takes the chain then"
            )

    def _kernel(self, key, make, types, shape: FusedShape) -> Kernel:
        if key not in self._fused:
            n_threads, shared_bytes = shape.layout.n_threads, shape.layout.shared_bytes
            self._fused[key] = Kernel(
                self.device,
                make(),
                types,
                n_threads,
                shared_bytes,
                shape.max_registers,
                shape.n_started,
            )
        return self._fused[key]

    def release(self) -> None:
        super().release()
        self.wide.release()

    def _grid(self, shape: FusedShape, n: int) -> int:
        most = shape.n_started * self.device.n_multiprocessors
        return min(-(-n // shape.layout.group_threads), most)

    @exclusive
    def inference(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None = None
    ) -> DeviceArray:
        shape, n = self._inference_shape, inputs.shape[0]
        can = self._fuses_inference and n <= self._most_samples
        self._require(can, "inference")
        if not can:
            return super().inference(inputs, params, outputs)
        if outputs is None:
            outputs = empty((n, self.model.network.n_output_dims), "f4", self.device)
        kernel = self._kernel(
            "inference",
            lambda: kernels.inference_kernel(shape.layout, self.precision),
            kernels.INFERENCE,
            shape,
        )
        weights, encoding = params.address, self._encoding_params(params)
        kernel(self._grid(shape, n), inputs.address, n, weights, encoding, outputs.address)
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
        shape, n = self._training_shape, inputs.shape[0]
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
        if gradients is None:
            shape = replace(shape, layout=replace(shape.layout, n_private=0))
        kernel = self._kernel(
            (loss, *options.values()),
            lambda: kernels.training_kernel(shape.layout, self.precision, loss, **options),
            kernels.TRAINING,
            shape,
        )
        grid = self._grid(shape, n)
        n_sums = grid * shape.layout.n_threads // WARP
        sums = self.partial_sums(n_sums)
        unscaled = 1.0 / self.loss_scale
        flat = scatter = 0
        if gradients is not None:
            flat = gradients.flat.address
            scatter = flat + network.n_params * FLOAT_BYTES
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
