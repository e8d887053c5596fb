"""The passes of an encoded network on a CUDA device: which kernels serve a model and a batch."""

from typing import Any

from numbanet.architecture import AMPERE, reaches
from numbanet.cuda.chain.engine import Chain
from numbanet.cuda.fused.engine import Fused
from numbanet.cuda.launch.kernel import exclusive
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.workspace import Workspace
from numbanet.cuda.wide.engine import Wide
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch, Gradients, LossSums
from numbanet.losses.base import AbstractLoss


class CudaEngine:
    """Queues passes: as one kernel where they can be fused, or two, or as a chain of kernels.

    Args:
        device: a CudaDevice, or anything with its methods.
        model: with a padded encoding.
        precision: of the parameters that the kernels read.
        fused: None where that is possible, True for an error where it is not, False for the chain.

    Raises:
        ValueError: fused kernels are required, and there are none for the device or the precision.
            Passes raise it where there are none for the model.
    """

    def __init__(
        self, device: Any, model: EncodedNetwork, precision: str, fused: bool | None = None
    ):
        can = precision != "float32" and reaches(device, AMPERE)
        if fused and not can:
            raise ValueError(
                "fused=True: float32, and GPUs before Ampere, have only the chain of kernels; use "
                "'float16' or 'bfloat16' on a newer GPU, or fused=None"
            )
        self._device = device
        self._required = bool(fused)
        self.model, self.precision = model, precision
        self.workspace = Workspace(device, model, precision)
        self.chain = Chain(self.workspace)
        fuses = can and fused is not False
        self.fused = Fused(self.workspace) if fuses else None
        self.wide = Wide(self.workspace) if fuses else None

    @property
    def generation(self) -> int:
        """Changes when memory has moved that queued work knows."""
        return self.workspace.generation

    def release(self) -> None:
        """Give the memory between the kernels back; it is made anew when it is needed."""
        self.workspace.release()
        self.chain.release()
        if self.wide is not None:
            self.wide.release()

    def _for_inference(self, n: int) -> Fused | Chain:
        """What evaluates a batch of n."""
        if self.fused is not None and self.fused.can_infer(n):
            return self.fused
        return self._chain("inference")

    def _for_training(self, n: int) -> Fused | Wide | Chain:
        """What trains with a batch of n."""
        if self.fused is not None and self.fused.can_train(n):
            return self.fused
        if self.wide is not None and self.wide.can_train:
            return self.wide
        return self._chain("a step")

    def _chain(self, what: str) -> Chain:
        if self._required:
            raise ValueError(
                f"fused=True: {what} of this model cannot be fused; fused=None takes the chain then"
            )
        return self.chain

    @exclusive
    def inference(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None = None
    ) -> DeviceArray:
        n = inputs.shape[0]
        serving = self._for_inference(n)
        if outputs is None:
            outputs = empty((n, self.model.network.n_output_dims), "f4", self._device)
        serving.inference(inputs, params, outputs)
        return outputs

    @exclusive
    def forward_backward(
        self,
        batch: Batch,
        params: DeviceArray,
        loss: AbstractLoss | None = None,
        gradients: Gradients | None = None,
        dl_dinput: DeviceArray | None = None,
    ) -> LossSums:
        serving = self._for_training(len(batch))
        n_sums = serving.forward_backward(batch, params, loss, gradients, dl_dinput)
        if gradients is not None and gradients.in_halves:
            self.workspace.collect(gradients)
        sums = self.workspace.partial_sums(n_sums)
        return LossSums(sums, n_sums, self.workspace.n_elements(batch))

    @exclusive
    def double_backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        dl_dy: DeviceArray,
        dl_ddl_dx: DeviceArray,
        gradients: Gradients | None,
    ) -> tuple[DeviceArray, DeviceArray]:
        found = self.chain.double_backward(inputs, params, dl_dy, dl_ddl_dx, gradients)
        if gradients is not None and gradients.in_halves:
            self.workspace.collect(gradients)
        return found
