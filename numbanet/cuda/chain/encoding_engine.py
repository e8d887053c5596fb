"""An encoding on a CUDA device: launches of its kernels, one for each of its parts."""

from functools import cached_property
from typing import Any

from numbanet.cuda.chain import encoding_kernels as kernels
from numbanet.cuda.launch.kernel import Kernel, exclusive
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.parameter_kernels import fill_columns_kernel
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Gradients, Service
from numbanet.storage.views import FLOAT_BYTES, ITEM_SIZES


class Rows:
    """Where the features of some samples lie, and how far apart samples and features are."""

    def __init__(self, address: int, sample_step: int, feature_step: int, storage: str):
        self.address, self.storage = address, storage
        self.sample_step, self.feature_step = sample_step, feature_step

    def column(self, k: int) -> int:
        """The address of feature k of the first sample."""
        return self.address + k * self.feature_step * ITEM_SIZES[self.storage]

    @property
    def steps(self) -> tuple[int, int]:
        return self.sample_step, self.feature_step


class EncodingPart:
    """The kernels of a part of an encoding; each is compiled when it is first needed."""

    def __init__(self, device: Any, part: Any, n_columns: int, precision: str, features: str):
        self._device, self._part, self._n_columns = device, part, n_columns
        self._encoding, self._precision, self._features = part.encoding, precision, features
        self._n_partitions = len(part.encoding.partition_columns)

    @cached_property
    def _forward(self):
        seen = self._part._replace(first_column=0, first_param=0)  # all that the kernel depends on
        function = kernels.forward_kernel(seen, self._n_columns, self._precision, self._features)
        return Kernel(self._device, function)

    @cached_property
    def _backward_params(self):
        function = kernels.backward_params_kernel(
            self._encoding, self._precision, self._features, "float32"
        )
        return Kernel(self._device, function)

    @cached_property
    def _backward_params_in_halves(self):
        precision = self._precision
        function = kernels.backward_params_kernel(
            self._encoding, precision, self._features, precision
        )
        return Kernel(self._device, function)

    @cached_property
    def _backward_input(self):
        function = kernels.backward_input_kernel(self._encoding, self._precision, self._features)
        return Kernel(self._device, function)

    @cached_property
    def _double_backward_input(self):
        function = kernels.double_backward_input_kernel(
            self._encoding, self._precision, self._features
        )
        return Kernel(self._device, function)

    @cached_property
    def _double_backward_params(self):
        function = kernels.double_backward_params_kernel(
            self._encoding, self._precision, self._features
        )
        return Kernel(self._device, function)

    def _grid(self, kernel, n):
        return -(-n // kernel.block), self._n_partitions

    def _input(self, x: int) -> int:
        return x + self._part.first_dim * FLOAT_BYTES

    def _params(self, address: int, precision: str) -> int:
        return address + self._part.first_param * ITEM_SIZES[precision]

    def forward(self, x: int, n: int, params: int, y: Rows) -> None:
        kernel = self._forward
        kernel(
            self._grid(kernel, n),
            *(x, n, self._params(params, self._precision)),
            *(y.column(self._part.first_column), *y.steps),
        )

    def backward_params(
        self, x: int, n: int, first: int, n_all: int, params: int, dl_dy: Rows, factor: float,
        dl_dparams: int, in_halves: bool,
    ) -> None:  # fmt: skip
        if self._encoding.n_params == 0:
            return
        kernel = self._backward_params_in_halves if in_halves else self._backward_params
        storage = self._precision if in_halves else "float32"
        kernel(
            self._grid(kernel, n),
            *(self._input(x), n, self._n_columns, first, n_all),
            self._params(params, self._precision),
            *(dl_dy.column(self._part.first_column), *dl_dy.steps, factor),
            self._params(dl_dparams, storage),
        )

    def backward_input(
        self, x: int, n: int, params: int, dl_dy: Rows, factor: float, dl_dx: int
    ) -> None:
        kernel = self._backward_input
        kernel(
            self._grid(kernel, n),
            *(self._input(x), n, self._n_columns, self._params(params, self._precision)),
            *(dl_dy.column(self._part.first_column), *dl_dy.steps, factor, self._input(dl_dx)),
        )

    def double_backward_input(
        self, x: int, n: int, params: int, dl_dy: Rows, factor: float, dl_ddx: int, dl_ddy: Rows,
        dl_dx: int,
    ) -> None:  # fmt: skip
        kernel, column = self._double_backward_input, self._part.first_column
        kernel(
            self._grid(kernel, n),
            *(self._input(x), n, self._n_columns, self._params(params, self._precision)),
            *(dl_dy.column(column), *dl_dy.steps, factor, self._input(dl_ddx)),
            *(dl_ddy.column(column), self._input(dl_dx)),
        )

    def double_backward_params(
        self, x: int, n: int, params: int, dl_dy: Rows, factor: float, dl_ddx: int,
        dl_dparams: int,
    ) -> None:  # fmt: skip
        if self._encoding.n_params == 0:
            return
        kernel = self._double_backward_params
        kernel(
            self._grid(kernel, n),
            *(self._input(x), n, self._n_columns, self._params(params, self._precision)),
            *(dl_dy.column(self._part.first_column), *dl_dy.steps, factor, self._input(dl_ddx)),
            self._params(dl_dparams, "float32"),
        )


class EncodingEngine:
    """Runs an encoding by itself; features are float32 in rows of samples.

    Args:
        device: a CudaDevice, or anything with its methods.
        encoding: the component, padded.
        precision: of the parameters that the kernels read.
    """

    def __init__(self, device: Any, encoding: AbstractEncoding, precision: str):
        self._device, self._encoding = device, encoding
        self._width = encoding.n_outputs
        self._parts = [
            EncodingPart(device, part, encoding.n_dims, precision, "float32")
            for part in encoding.parts
        ]

    @cached_property
    def _fill_columns(self) -> Kernel:
        return Kernel(self._device, fill_columns_kernel)

    def release(self) -> None:
        """There is no memory between the kernels."""

    def services(self) -> list[Service]:
        return [Service("all passes", "a kernel for each part", "it has no network")]

    def _rows(self, features: DeviceArray, first: int) -> Rows:
        address = features.address + first * self._width * FLOAT_BYTES
        return Rows(address, self._width, 1, "float32")

    def _slabs(self, inputs: DeviceArray):
        """First row, number of rows and place in bytes of what one launch takes of the inputs."""
        n_columns = self._encoding.n_dims
        for first in range(0, inputs.shape[0], MOST_ROWS):
            n = min(MOST_ROWS, inputs.shape[0] - first)
            yield first, n, first * n_columns * FLOAT_BYTES

    @exclusive
    def forward(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None = None
    ) -> DeviceArray:
        """The features [n, n_outputs], in an array that is given or in a new one."""
        if outputs is None:
            outputs = empty((inputs.shape[0], self._width), "f4", self._device)
        for first, n, place in self._slabs(inputs):
            for column, stop, value in self._encoding.constants:
                start = outputs.address + (first * self._width + column) * FLOAT_BYTES
                n_columns = stop - column
                self._fill_columns.over(n * n_columns, start, value, n, n_columns, self._width)
            for part in self._parts:
                part.forward(inputs.address + place, n, params.address, self._rows(outputs, first))
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
        for first, n, place in self._slabs(inputs):
            x, rows = inputs.address + place, self._rows(dl_dy, first)
            for part in self._parts:
                if gradients is not None:
                    to = gradients.flat.address
                    part.backward_params(
                        x, n, first, inputs.shape[0], params.address, rows, 1.0, to, False
                    )
                if dl_dx is not None:
                    to = dl_dx.address + place
                    part.backward_input(x, n, params.address, rows, 1.0, to)

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
        """The gradients with respect to dl_dy and the inputs, in arrays that are given or in new
        ones; adds to `gradients`.
        """
        if outputs is None:
            outputs = tuple(empty(like.shape, "f4", self._device) for like in (dl_dy, inputs))
        for each in outputs:
            self._device.zero(each.address, each.nbytes)
        dl_ddl_dy, dl_dx = outputs
        for first, n, place in self._slabs(inputs):
            x, along = inputs.address + place, dl_ddl_dx.address + place
            rows, to = self._rows(dl_dy, first), self._rows(dl_ddl_dy, first)
            for part in self._parts:
                part.double_backward_input(
                    x, n, params.address, rows, 1.0, along, to, dl_dx.address + place
                )
                if gradients is not None:
                    part.double_backward_params(
                        x, n, params.address, rows, 1.0, along, gradients.flat.address
                    )
        return outputs
