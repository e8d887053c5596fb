"""Places of a network's matrices and biases among its parameters, and their gradients."""

from collections.abc import Callable
from functools import cached_property, partial
from itertools import accumulate

from numbanet.cuda.chain.biases import ROW_BLOCK, add_bias_kernel, row_sums_kernel
from numbanet.cuda.chain.layers import Layers
from numbanet.cuda.chain.matrix_product import Launch
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.workspace import Workspace
from numbanet.engine import Gradients
from numbanet.storage.views import FLOAT_BYTES


class Weights:
    """The layers of a network, without padded outputs; methods only queue kernels."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        network = workspace.model.network
        self.activations = network.layer_activations
        # Rows without padding; weights begin where those with padding end.
        rows = *(rows for rows, _ in network.shapes[:-1]), network.n_output_dims
        self.shapes = [(n, columns) for n, (_, columns) in zip(rows, network.shapes, strict=False)]
        sizes = (rows * columns for rows, columns in network.shapes)
        self._starts = tuple(accumulate(sizes, initial=0))[:-1]
        self._bias_starts = network.bias_starts
        places = zip(self._bias_starts, self._starts, strict=False)
        self.first_biases = tuple(bias - matrix for bias, matrix in places)

    def address(self, k: int, params: DeviceArray) -> int:
        """The address of matrix k."""
        return params.address + self._starts[k] * params.dtype.itemsize

    @cached_property
    def _row_sums(self) -> Kernel:
        device, precision = self._workspace.device, self._workspace.precision
        return Kernel(device, row_sums_kernel(precision), ROW_BLOCK)

    @cached_property
    def _add_bias(self) -> Kernel:
        return Kernel(self._workspace.device, add_bias_kernel)

    def add_bias(self, k: int, params: DeviceArray, y: int, n: int, pitch: int) -> None:
        """Add a layer's bias, if it has one, to n columns of y in float32."""
        if self._bias_starts:
            bias, n_rows = params.address + self._bias_starts[k] * FLOAT_BYTES, self.shapes[k][0]
            self._add_bias.over(n_rows * n, y, bias, n_rows, n, pitch)

    def add_gradients(
        self, k: int, launch: Launch, dl_dy: int, x: int, gradients: Gradients
    ) -> None:
        """Add the gradient of matrix k; if deterministic, through slots added in order."""
        if not self._workspace.deterministic:
            to = self._gradient_address(k, gradients)
            launch(dl_dy, x, to, self._workspace.unscaled)
            return
        n, n_slots = self._size(k), launch.grid[2]
        slots = self._workspace.slots.zeros(n_slots, n)
        launch(dl_dy, x, slots, self._workspace.unscaled)
        self.add_slots(k, gradients, launch, slots)

    def _size(self, k: int) -> int:
        rows, columns = self.shapes[k]
        return rows * columns

    def _gradient_address(self, k: int, gradients: Gradients) -> int:
        return gradients.flat.address + self._starts[k] * FLOAT_BYTES

    def _slot_starts(self, launches: list[Launch]) -> list[int]:
        """Number of slots' float32 before those of each matrix, and of all."""
        sizes = (launch.grid[2] * self._size(k) for k, launch in enumerate(launches))
        return list(accumulate(sizes, initial=0))

    def clear_slots(self, launches: list[Launch]) -> None:
        """Zero the slots of all matrices, whose gradients these launches add to."""
        self._workspace.slots.zeros(1, self._slot_starts(launches)[-1])

    def sums(self, launches: list[Launch], gradients: Gradients | None) -> list[int]:
        """Addresses that launches add to: those of the matrices' slots, or of their gradients."""
        if gradients is None:
            return []
        if not self._workspace.deterministic:
            return [self._gradient_address(k, gradients) for k in range(len(launches))]
        *starts, n = self._slot_starts(launches)
        first = self._workspace.slots.rows(1, n)
        return [first + FLOAT_BYTES * start for start in starts]

    def add_slots(self, k: int, gradients: Gradients, launch: Launch, slots: int) -> None:
        """Add the slots of matrix k to its gradient."""
        to = self._gradient_address(k, gradients)
        self._workspace.slots.add_rows(slots, launch.grid[2], self._size(k), to)

    def works(
        self, launches: list[Launch], n: int, layers: Layers, gradients: Gradients | None
    ) -> list[list[Callable]]:
        """Functions for each layer that queue the gradients of its parameters."""
        works = [[] for _ in self.shapes]
        for k, to in enumerate(self.sums(launches, gradients)):
            dl_dy, x = layers.dl_dvalues[k + 1], layers.values[k]
            works[k].append(partial(launches[k], dl_dy, x, to, self._workspace.unscaled))
            if self._bias_starts:
                of_bias = k, dl_dy, n, layers.pitch, gradients
                works[k].append(partial(self.add_bias_gradients, *of_bias))
        return works

    def slot_additions(self, launches: list[Launch], gradients: Gradients | None) -> list[Callable]:
        """Functions that queue the sums of all matrices' slots, if there are any."""
        if not self._workspace.deterministic:
            return []
        slots = enumerate(self.sums(launches, gradients))
        return [partial(self.add_slots, k, gradients, launches[k], rows) for k, rows in slots]

    def add_bias_gradients(
        self, k: int, dl_dy: int, n: int, pitch: int, gradients: Gradients
    ) -> None:
        """Add the gradient of a layer's bias, if it has one: sums of n columns of dl_dy."""
        if self._bias_starts:
            to = gradients.flat.address + self._bias_starts[k] * FLOAT_BYTES
            self._row_sums(self.shapes[k][0], dl_dy, n, pitch, self._workspace.unscaled, to)
