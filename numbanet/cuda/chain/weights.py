"""Where a network's matrices lie among its parameters, and their gradients."""

from itertools import accumulate

from numbanet.cuda.chain.matrix_product import Launch
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

    def address(self, k: int, params: DeviceArray) -> int:
        """The address of matrix k."""
        return params.address + self._starts[k] * params.dtype.itemsize

    def add_gradients(
        self, k: int, launch: Launch, dl_dy: int, x: int, gradients: Gradients
    ) -> None:
        """Add the gradient of matrix k; if deterministic, through slots added in order."""
        own, (fan_out, fan_in) = self._workspace, self.shapes[k]
        to = gradients.flat.address + self._starts[k] * FLOAT_BYTES
        if not own.deterministic:
            launch(dl_dy, x, to, own.unscaled)
            return
        n, n_slots = fan_out * fan_in, launch.grid[2]
        launch(dl_dy, x, own.slots.zeros(n_slots, n), own.unscaled)
        own.slots.add_to(to, n_slots, n)
