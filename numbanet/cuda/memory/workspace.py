"""State that the parts of an engine share: sizes, the scale of gradients, sums of the loss."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from numbanet.cuda.memory.arrays import DeviceArray, address_of, empty
from numbanet.cuda.memory.parameters import Collector
from numbanet.cuda.memory.rooms import PassMemory
from numbanet.cuda.memory.slots import BLOCKS, Slots
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Batch, Gradients
from numbanet.storage.views import FLOAT_BYTES, STORAGES

LOSS_SCALES = {"float32": 1.0, "float16": 128.0, "bfloat16": 128.0}


class Kept(NamedTuple):
    """Range of pairs of features whose gradients are kept for other kernels, and their memory.

    Of pairs that are given, the features themselves are there before.
    """

    first: int
    stop: int
    address: int  # of a row of all samples, padded to a multiple of 4, for each pair
    largest: int = 0  # address for the largest gradient of each pair, float32, of 0 before; or 0
    given: tuple[int, ...] = ()

    @property
    def pairs(self) -> tuple[int, int]:
        return self.first, self.stop


@dataclass(frozen=True)
class PassOptions:
    """Options of a training kernel: each combination is compiled on its own."""

    has_pdf: bool = False
    external_dl_dy: str | None = None  # its storage type, if it is given
    param_gradients: bool = True
    storage: str = "float32"  # of the gradients of the encoding
    input_gradients: bool = False
    kept: tuple[int, int] | None = None  # see Kept.pairs
    given: tuple[int, ...] = ()  # see Kept
    notes: bool = False  # notes the largest of the kept gradients
    in_slots: bool = False  # the gradients of weights are written to a slot of each group

    def scatters(self, encoding: AbstractEncoding) -> bool:
        """Whether the kernel adds up the gradients of the encoding's parameters."""
        return self.param_gradients and encoding.n_params > 0 and self.kept is None

    def wants_features(self, encoding: AbstractEncoding) -> bool:
        """Whether the gradients of the features are needed."""
        return self.scatters(encoding) or self.kept is not None or self.input_gradients


def storage_of(array: DeviceArray | None) -> str | None:
    """Storage type of an array's elements; None where there is no array."""
    return None if array is None else STORAGES[array.dtype]


class Workspace(PassMemory):
    """Model and state common to its passes.

    Args:
        device: a CudaDevice, or anything with its methods.
        model: with a padded encoding.
        precision: of the parameters that the kernels read.
    """

    def __init__(self, device: Any, model: EncodedNetwork, precision: str):
        super().__init__(device)
        self.model, self.precision = model, precision
        self.loss_scale = LOSS_SCALES[precision]
        self.unscaled = 1.0 / self.loss_scale
        self.slots = Slots(device, self.rooms)
        self._sums = None

    @property
    def n_multiprocessors(self) -> int:
        """Multiprocessors among which the samples of a pass are divided."""
        return BLOCKS if self.deterministic else self.device.n_multiprocessors

    def partial_sums(self, n: int) -> DeviceArray:
        """Memory for n partial sums of the loss."""
        if self._sums is None or self._sums.size < n:
            self._sums = empty((max(n, 1),), "f4", self.device)
            self.rooms.generation += 1
        return self._sums

    def release(self) -> None:
        self._sums = None
        super().release()

    @cached_property
    def collect(self) -> Collector:
        return Collector(self.device, self.precision, self.unscaled)

    def options(
        self,
        batch: Batch,
        gradients: Gradients | None,
        dl_dinput: DeviceArray | None,
        kept: Kept | None = None,
    ) -> PassOptions:
        in_halves = gradients is not None and gradients.in_halves and kept is None
        return PassOptions(
            batch.pdf is not None,
            storage_of(batch.external_dl_dy),
            gradients is not None,
            self.precision if in_halves else "float32",
            dl_dinput is not None,
            *((None, (), False) if kept is None else (kept.pairs, kept.given, kept.largest != 0)),
        )

    def scale(self, batch: Batch) -> float:
        """Factor of the gradient of the outputs: of the mean loss, or of external_dl_dy."""
        if batch.external_dl_dy is not None:
            return self.loss_scale
        return self.loss_scale / self.n_elements(batch)

    def n_elements(self, batch: Batch) -> int:
        """Number of elements in the mean loss; 1 for an empty batch."""
        return batch.n_elements(self.model.network.n_output_dims)

    def encoding_params(self, params: DeviceArray) -> int:
        """Address of the encoding's parameters."""
        return params.address + self.model.network.n_params * params.dtype.itemsize

    def encoding_gradients(
        self, gradients: Gradients | None, kept: Kept | None = None
    ) -> tuple[int, float]:
        """Destination of the encoding's gradients, or of its features' if kept, and the factor."""
        if gradients is None:
            return 0, self.unscaled
        if kept is not None:
            return kept.address, 1.0
        if gradients.in_halves:  # scaled until they are collected
            return gradients.scatter.address, 1.0
        return self.float_gradients(gradients), self.unscaled

    def float_gradients(self, gradients: Gradients) -> int:
        """Address of the encoding's gradients in float32."""
        return address_of(gradients.flat) + self.model.network.n_params * FLOAT_BYTES
