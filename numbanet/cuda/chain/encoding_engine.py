"""Engine of an encoding on a CUDA device: launches of kernels, one for each of its parts."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

from numbanet.cuda.chain import encoding_kernels as kernels
from numbanet.cuda.chain.encoding_kernels import IN_TURN, backward_sample, double_backward_sample
from numbanet.cuda.chain.integer_sums import IntegerSums
from numbanet.cuda.launch.kernel import Kernel, exclusive
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.parameter_kernels import fill_columns_kernel
from numbanet.cuda.memory.rooms import PassMemory
from numbanet.cuda.tables.digits import DigitSums
from numbanet.cuda.tables.radix import EXACT, FAST
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Gradients, Service
from numbanet.storage.views import FLOAT_BYTES, ITEM_SIZES

FEWEST_DIGITS = 1 << 16  # samples from which on sums of digits are faster than any


class Rows:
    """Features of some samples in memory: the address, and the strides of samples and features."""

    def __init__(self, address: int, sample_step: int, feature_step: int, storage: str):
        self.address, self.storage = address, storage
        self.sample_step, self.feature_step = sample_step, feature_step

    def column(self, k: int) -> int:
        """Address of feature k of the first sample."""
        return self.address + k * self.feature_step * ITEM_SIZES[self.storage]

    @property
    def steps(self) -> tuple[int, int]:
        return self.sample_step, self.feature_step


class Slab(NamedTuple):
    """Samples of one launch: address of their inputs, number, and place in the batch."""

    x: int  # address
    n: int
    first: int
    n_all: int

    def of(self, array: DeviceArray) -> int:
        """Address of their rows in an array."""
        return array.address + self.first * array.shape[1] * array.dtype.itemsize


def slabs(inputs: DeviceArray, most: int) -> Iterator[Slab]:
    """Slabs of a batch, of a limited number of samples each."""
    n_all, n_columns = inputs.shape
    for first in range(0, n_all, most):
        x = inputs.address + first * n_columns * FLOAT_BYTES
        yield Slab(x, min(most, n_all - first), first, n_all)


class EncodingPart:
    """Kernels of a part of an encoding, each compiled on first use.

    Args:
        own: memory of the passes, and whether sums are deterministic, which may change.
        part: a Part of the encoding.
        n_columns: of a row of inputs.
        precision: of the parameters that the kernels read.
        features: precision of the features.
    """

    def __init__(self, own: PassMemory, part: Any, n_columns: int, precision: str, features: str):
        self._own, self._part, self._n_columns = own, part, n_columns
        self._encoding, self._precision, self._features = part.encoding, precision, features
        self._n_partitions = len(part.encoding.partition_columns)
        self._kernels, self._integer_sums = {}, {}

    def _launch(self, make: Callable, what: Any, more: tuple, n: int, *values: float) -> None:
        """Queue the kernel that `make` returns for n samples of `what`."""
        key = make, more
        if key not in self._kernels:
            function = make(what, *more, self._precision, self._features)
            self._kernels[key] = Kernel(self._own.device, function)
        kernel = self._kernels[key]
        n_partitions = 1 if more == IN_TURN else self._n_partitions
        kernel((-(-n // kernel.block), n_partitions), *values)

    def _input(self, x: int) -> int:
        return x + self._part.first_dim * FLOAT_BYTES

    def _params(self, address: int, precision: str) -> int:
        return address + self._part.first_param * ITEM_SIZES[precision]

    def _column(self, rows: Rows) -> int:
        return rows.column(self._part.first_column)

    def forward(self, slab: Slab, params: int, y: Rows) -> None:
        seen = self._part._replace(first_column=0, first_param=0)  # all that the kernel depends on
        params = self._params(params, self._precision)
        values = slab.x, slab.n, params, self._column(y), *y.steps
        self._launch(kernels.forward_kernel, seen, (self._n_columns,), slab.n, *values)

    def backward_params(
        self, slab: Slab, params: int, dl_dy: Rows, factor: float, dl_dparams: int, in_halves: bool
    ) -> None:
        if self._encoding.n_params == 0:
            return
        if self._own.deterministic or (
            slab.n >= FEWEST_DIGITS and not in_halves and self._has_digits
        ):
            self._add_integers(backward_sample, slab, params, dl_dy, factor, 0, dl_dparams)
            return
        storage = self._precision if in_halves else "float32"
        self._launch(
            *(kernels.backward_params_kernel, self._encoding, (storage,), slab.n),
            *(self._input(slab.x), slab.n, self._n_columns, slab.first, slab.n_all),
            self._params(params, self._precision),
            *(self._column(dl_dy), *dl_dy.steps, factor, self._params(dl_dparams, storage)),
        )

    def _add_integers(
        self, sample: Callable, slab: Slab, params: int, dl_dy: Rows, factor: float, along: int,
        dl_dparams: int,
    ) -> None:  # fmt: skip
        """Add the sums that a function of integer_sums.py computes; `along` is dl_ddx, or 0."""
        key = sample, self._own.deterministic
        if key not in self._integer_sums:
            self._integer_sums[key] = self._sums_of(sample)
        of_batch = (
            *(self._input(slab.x), self._n_columns, slab.first, slab.n_all),
            *(self._params(params, self._precision), self._column(dl_dy), *dl_dy.steps),
            *(along, factor),
        )
        self._integer_sums[key](slab.n, of_batch, self._params(dl_dparams, "float32"))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes from which on other kernels add up the gradients of parameters."""
        return (FEWEST_DIGITS,) if self._has_digits and not self._own.deterministic else ()

    @cached_property
    def _has_digits(self) -> bool:
        return DigitSums.serves(self._own.device, self._encoding)

    def _sums_of(self, sample: Callable) -> IntegerSums | DigitSums:
        device, rooms, encoding = self._own.device, self._own.rooms, self._encoding
        if sample is backward_sample and self._has_digits:
            digits = EXACT if self._own.deterministic else FAST
            return DigitSums(device, rooms, encoding, self._n_columns, self._features, digits)
        return IntegerSums(device, rooms, sample, encoding, self._precision, self._features)

    def _differentiate(
        self, make: Callable, slab: Slab, params: int, dl_dy: Rows, factor: float, *more: int
    ) -> None:
        """Queue one of the other kernels, whose first arguments are the same."""
        of_inputs = make is not kernels.double_backward_params_kernel
        in_turn = of_inputs and self._own.deterministic and self._n_partitions > 1
        self._launch(
            *(make, self._encoding, IN_TURN if in_turn else (), slab.n),
            *(self._input(slab.x), slab.n, self._n_columns, self._params(params, self._precision)),
            *(self._column(dl_dy), *dl_dy.steps, factor, *more),
        )

    def backward_input(
        self, slab: Slab, params: int, dl_dy: Rows, factor: float, dl_dx: int
    ) -> None:
        make = kernels.backward_input_kernel
        self._differentiate(make, slab, params, dl_dy, factor, self._input(dl_dx))

    def double_backward_input(
        self, slab: Slab, params: int, dl_dy: Rows, factor: float, dl_ddx: int, dl_ddy: Rows,
        dl_dx: int,
    ) -> None:  # fmt: skip
        more = self._input(dl_ddx), self._column(dl_ddy), self._input(dl_dx)
        make = kernels.double_backward_input_kernel
        self._differentiate(make, slab, params, dl_dy, factor, *more)

    def double_backward_params(
        self, slab: Slab, params: int, dl_dy: Rows, factor: float, dl_ddx: int, dl_dparams: int
    ) -> None:
        if self._encoding.n_params == 0:
            return
        along = self._input(dl_ddx)
        if self._own.deterministic:
            sample = double_backward_sample
            self._add_integers(sample, slab, params, dl_dy, factor, along, dl_dparams)
            return
        make, to = kernels.double_backward_params_kernel, self._params(dl_dparams, "float32")
        self._differentiate(make, slab, params, dl_dy, factor, along, to)


class EncodingEngine(PassMemory):
    """Engine of an encoding by itself; features are float32 in rows of samples.

    Args:
        device: a CudaDevice, or anything with its methods.
        encoding: the component, padded.
        precision: of the parameters that the kernels read.
    """

    def __init__(self, device: Any, encoding: AbstractEncoding, precision: str):
        super().__init__(device)
        self._device, self._encoding, self._width = device, encoding, encoding.n_outputs
        self._parts = [
            EncodingPart(self, part, encoding.n_dims, precision, "float32")
            for part in encoding.parts
        ]

    @cached_property
    def _fill_columns(self) -> Kernel:
        return Kernel(self._device, fill_columns_kernel)

    def services(self) -> list[Service]:
        return [Service("all passes", "a kernel for each part", "it has no network")]

    def _rows(self, features: DeviceArray, slab: Slab) -> Rows:
        return Rows(slab.of(features), self._width, 1, "float32")

    @exclusive
    def forward(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None = None
    ) -> DeviceArray:
        """Features [n, n_outputs], in a given array or in a new one."""
        if outputs is None:
            outputs = empty((inputs.shape[0], self._width), "f4", self._device)
        for slab in slabs(inputs, MOST_ROWS):
            rows, n = self._rows(outputs, slab), slab.n
            for column, stop, value in self._encoding.constants:
                start, n_columns = rows.column(column), stop - column
                self._fill_columns.over(n * n_columns, start, value, n, n_columns, self._width)
            for part in self._parts:
                part.forward(slab, params.address, rows)
        return outputs

    @exclusive
    def backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        dl_dy: DeviceArray,
        gradients: Gradients | None,
        dl_dx: DeviceArray | None,
    ) -> None:
        """Add to `gradients` and write `dl_dx`, where they are given."""
        if dl_dx is not None:
            self._device.zero(dl_dx.address, dl_dx.nbytes)
        for slab in slabs(inputs, MOST_ROWS):
            rows = self._rows(dl_dy, slab)
            for part in self._parts:
                if gradients is not None:
                    to = gradients.flat.address
                    part.backward_params(slab, params.address, rows, 1.0, to, False)
                if dl_dx is not None:
                    part.backward_input(slab, params.address, rows, 1.0, slab.of(dl_dx))

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
        """Gradients with respect to dl_dy and the inputs, in given arrays or in new ones; adds to
        `gradients`.
        """
        if outputs is None:
            outputs = tuple(empty(like.shape, "f4", self._device) for like in (dl_dy, inputs))
        for each in outputs:
            self._device.zero(each.address, each.nbytes)
        dl_ddl_dy, dl_dx = outputs
        for slab in slabs(inputs, MOST_ROWS):
            rows, to = self._rows(dl_dy, slab), self._rows(dl_ddl_dy, slab)
            given = slab, params.address, rows, 1.0, slab.of(dl_ddl_dx)
            for part in self._parts:
                part.double_backward_input(*given, to, slab.of(dl_dx))
                if gradients is not None:
                    part.double_backward_params(*given, gradients.flat.address)
        return outputs
