"""Engine of an encoded network on a CUDA device: the choice of kernels for a model and a batch."""

from functools import cached_property, partial
from typing import Any

import numpy as np

from numbanet.architecture import AMPERE, reaches
from numbanet.cuda.chain.engine import Chain
from numbanet.cuda.chain.kept_sums import KeptSums
from numbanet.cuda.fused.engine import Fused
from numbanet.cuda.launch.kernel import Kernel, exclusive
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.inputs import FLOAT
from numbanet.cuda.memory.workspace import Workspace
from numbanet.cuda.serving import services
from numbanet.cuda.tables.gradients import ModelTables, tables_of
from numbanet.cuda.wide.engine import Wide
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch, Gradients, LossSums, Service
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import FLOAT_BYTES

SLAB = 1 << 19  # samples of an inference whose features are looked up before


class CudaEngine:
    """Engine that queues passes as one fused kernel, as two, or as a chain of kernels.

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
        self._asked, self._required = fused, bool(fused)
        self.model, self.precision = model, precision
        self.n_output_dims = model.network.n_output_dims
        self.workspace = Workspace(device, model, precision)
        self.chain = Chain(self.workspace)
        fuses = can and fused is not False
        self.fused = Fused(self.workspace) if fuses else None
        self.wide = Wide(self.workspace) if fuses else None
        self.tables = tables_of(device, model.encoding, precision) if fuses else None

    def services(self) -> list[Service]:
        return services(self._device, self.precision, self.fused, self.wide, self._asked)

    is_queued = True  # the host waits for nothing

    @property
    def generation(self) -> int:
        """Counter that changes when memory used by queued work has moved."""
        of_tables = 0 if self.tables is None else self.tables.generation
        return self.workspace.generation + of_tables

    @property
    def deterministic(self) -> bool:
        """Whether gradients and losses are the same bits in every run; may be set."""
        return self.workspace.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.workspace.deterministic = value

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self.workspace.release()
        self.chain.release()
        if self.wide is not None:
            self.wide.release()
        if self.tables is not None:
            self.tables.release()

    def _for_inference(self, n: int) -> Fused | Chain:
        """Kernels that evaluate a batch of n."""
        if self.fused is not None and n <= self.fused.most_inferred:
            return self.fused
        return self._chain("inference")

    def _for_training(self, n: int) -> Fused | Wide | Chain:
        """Kernels that train with a batch of n."""
        keeps = self.deterministic or (self.tables is not None and n >= self.tables.fewest)
        if self.fused is not None and self.fused.can_train(n, keeps):
            return self.fused
        if self.wide is not None and self.wide.can_train:
            return self.wide
        return self._chain("a step")

    @cached_property
    def _kept_sums(self) -> KeptSums | None:
        return KeptSums(self.workspace) if self.model.encoding.n_params else None

    def _tables_for(
        self, serving: Fused | Wide | Chain, n: int, gradients: Gradients | None
    ) -> ModelTables | KeptSums | None:
        """Sums of the encoding's gradients; None if the kernels of the pass add them up."""
        if gradients is None or serving is self.chain or n == 0:
            return None
        if self.deterministic:
            return self._kept_sums if self.tables is None else self.tables
        return self.tables if self.tables is not None and n >= self.tables.fewest else None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes from which on other kernels serve a training step, or inference."""
        if self._for_training(1) is self.chain:
            return self.chain.batch_sizes
        if self.tables is None:
            return ()
        fewest, given = 1 if self.deterministic else self.tables.fewest, self.tables.given
        of_given = (self.tables.fewest_given, self.tables.fewest_inferred) if given else ()
        return tuple(sorted({fewest, *(max(fewest, each) for each in of_given)}))

    def _chain(self, what: str) -> Chain:
        if self._required:
            raise ValueError(
                f"fused=True: {what} of this model cannot be fused; fused=None takes the chain then"
            )
        return self.chain

    def inference(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None = None
    ) -> DeviceArray:
        n, fused, tables = inputs.shape[0], self.fused, self.tables
        with self._device.lock:
            serving = self._for_inference(n)
            if outputs is None:
                outputs = empty((n, self.model.network.n_output_dims), "f4", self._device)
            if serving is fused and tables is not None and n >= tables.fewest_inferred:
                self._inference_of_given(inputs, params, outputs)
            else:
                serving.inference(inputs, params, outputs)
        return outputs

    def reading_float32(self, n: int, dtype: np.dtype) -> tuple[Kernel, int, int] | None:
        """Kernel that evaluates n samples with parameters in float32; see Fused.for_inference.

        It computes what `inference` does with parameters that were rounded. None where there is
        none, or several kernels are faster.
        """
        fused, tables = self.fused, self.tables
        if fused is None or n > fused.most_inferred or not fused.rounds_float32:
            return None
        if tables is not None and n >= tables.fewest_inferred:
            return None
        return fused.for_inference(n, FLOAT, dtype)

    def _inference_of_given(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray
    ) -> None:
        """Evaluate in slabs, whose features the second-level cache holds."""
        n, encoding_params = inputs.shape[0], self.workspace.encoding_params(params)
        for first in range(0, n, SLAB):
            x, y = inputs, outputs
            if n > SLAB:
                rows = slice(first, first + SLAB)
                x, y = inputs[rows], outputs[rows]
            kept = self.tables.look_up(x.address, x.shape[0], encoding_params)
            self.fused.inference(x, params, y, kept)

    @exclusive
    def forward_backward(
        self,
        batch: Batch,
        params: DeviceArray,
        loss: AbstractLoss | None = None,
        gradients: Gradients | None = None,
        dl_dinput: DeviceArray | None = None,
        *,
        overwrite: bool = False,
    ) -> LossSums:
        return self._forward_backward(batch, params, loss, gradients, dl_dinput, overwrite)

    @exclusive
    def begin_step(self, *given) -> LossSums:
        """`forward_backward`, whose slots and tables wait for the caller: see `can_defer`."""
        return self._forward_backward(*given, True, True)

    def _forward_backward(
        self, batch, params, loss, gradients, dl_dinput, overwrite: bool, defers: bool = False
    ) -> LossSums:
        if self.deterministic and gradients is not None:
            gradients = Gradients(gradients.flat)  # halves are added up in any order
        self.workspace.slots.waiting = None  # of a pass that failed
        n, given = len(batch), (batch, params, loss, gradients, dl_dinput)
        serving = self._for_training(n)
        tables = self._tables_for(serving, n, gradients)
        own, whole = self.workspace, tables is not None and tables is self.tables
        if overwrite and not (whole and serving is self.fused):  # which writes all of them
            self._clear(gradients, whole)
        if n == 0:  # nothing is to be compiled for it
            n_sums = 0
        elif tables is None:
            n_sums = serving.forward_backward(*given)
            own.slots.add_waiting()
            if gradients is not None and gradients.in_halves:
                own.collect(gradients)
        else:
            inputs, encoding_params = batch.inputs.address, own.encoding_params(params)
            to, adds = own.float_gradients(gradients), not overwrite
            gives = whole and n >= tables.fewest_given
            kept = tables.give(inputs, n, encoding_params) if gives else tables.keep(n)
            n_sums = serving.forward_backward(*given, kept)
            if defers:
                tables.waiting = tables.passes(inputs, n, kept, to, own.unscaled, False)
                return LossSums(
                    own.partial_sums(n_sums), n_sums, own.n_elements(batch), tables.largest
                )
            if whole:
                add_up = partial(tables, inputs, n, kept, to, own.unscaled, adds)
            else:
                add_up = partial(tables, inputs, n, encoding_params, to)
            adds = adds or not (whole and serving is self.fused)
            self._device.in_parallel(add_up, partial(own.slots.add_waiting, adds))
        sums, noted = own.partial_sums(n_sums), tables.noted if whole else None
        return LossSums(sums, n_sums, own.n_elements(batch), noted)

    def can_defer(self, n: int, gradients: Gradients | None) -> bool:
        """Whether the sums of a batch's slots and tables may be left to its step."""
        serving = self._for_training(n)
        tables = self._tables_for(serving, n, gradients)
        whole = tables is not None and tables is self.tables and serving is self.fused
        return whole and tables.can_wait(n)

    def _clear(self, gradients: Gradients, whole: bool) -> None:
        """Zero the gradients that a pass adds to; those of tables may be written as a whole."""
        n = self.model.network.n_params if whole else gradients.flat.size
        self._device.zero(gradients.flat.address, n * FLOAT_BYTES)

    @exclusive
    def double_backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        dl_dy: DeviceArray,
        dl_ddl_dx: DeviceArray,
        gradients: Gradients | None,
        outputs: tuple[DeviceArray, DeviceArray] | None = None,
    ) -> tuple[DeviceArray, DeviceArray]:
        if self.deterministic and gradients is not None:
            gradients = Gradients(gradients.flat)
        if outputs is None:
            outputs = tuple(empty(like.shape, "f4", self._device) for like in (dl_dy, inputs))
        self.chain.double_backward(inputs, params, dl_dy, dl_ddl_dx, gradients, outputs)
        if gradients is not None and gradients.in_halves:
            self.workspace.collect(gradients)
        return outputs
