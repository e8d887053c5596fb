"""Derivatives of a network's outputs on a CUDA device: a chain of kernels, in float32."""

from itertools import accumulate
from typing import Any

from numbanet.activations import activation
from numbanet.cuda.chain import jet_kernels as kernels
from numbanet.cuda.chain.encoding_engine import Slab, slabs
from numbanet.cuda.chain.integer_sums import IntegerSums
from numbanet.cuda.chain.layers import Layers
from numbanet.cuda.chain.matrix_product import Launch, MatrixProduct
from numbanet.cuda.chain.plans import Plans
from numbanet.cuda.launch.kernel import BLOCK, Kernel, exclusive
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray, address_of
from numbanet.cuda.memory.workspace import Workspace
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Gradients
from numbanet.jets import Jet
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES

NONE = activation("None")
PITCH = 64  # rows lie a multiple of this apart


class DerivativeEngine:
    """Engine of derivatives of one encoded network; all methods only queue kernels.

    Args:
        device: a CudaDevice, or anything with its methods.
        model: with a padded encoding.
    """

    def __init__(self, device: Any, model: EncodedNetwork):
        self._device, self.model = device, model
        self._workspace = Workspace(device, model, "float32")
        network = model.network
        self._activations = network.layer_activations
        # Rows without padding; weights begin where those with padding end.
        rows = *(rows for rows, _ in network.shapes[:-1]), network.n_output_dims
        self._shapes = list(zip(rows, (columns for _, columns in network.shapes), strict=True))
        sizes = (rows * columns for rows, columns in network.shapes)
        self._offsets = tuple(accumulate(sizes, initial=0))[:-1]
        self._plans = Plans(MatrixProduct(device, "float32"), self._activations, self._shapes)
        self._kernels, self._layers = {}, None

    @property
    def deterministic(self) -> bool:
        """Whether gradients are the same bits in every run; may be set."""
        return self._workspace.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self._workspace.deterministic = value

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self._layers = None
        self._workspace.release()

    def _kernel(self, make: Any, *what: Any) -> Kernel:
        """Kernel that `make` returns, compiled on first use."""
        key = make, *what
        if key not in self._kernels:
            self._kernels[key] = Kernel(self._device, make(*what))
        return self._kernels[key]

    def _buffers(self, n: int) -> Layers:
        """Buffers between the kernels, for n columns of jets; reallocated where there are more."""
        pitch = next_multiple(n, PITCH)
        if self._layers is None or self._layers.pitch < pitch:
            self._layers = None  # frees the old ones before the new ones are made
            network = self.model.network
            self._layers = Layers(self._device, network, "float32", pitch, keeps_inputs=True)
        return self._layers

    def _weights(self, k: int, params: DeviceArray) -> int:
        return params.address + self._offsets[k] * FLOAT_BYTES

    def _slabs(self, inputs: DeviceArray, jet: Jet) -> tuple[Layers, list[Slab]]:
        """Samples of each slab, and the buffers for their jets."""
        most = MOST_ROWS // jet.n_columns
        found = list(slabs(inputs, most))
        return self._buffers(jet.n_columns * min(len(inputs), most)), found

    # Passes over a slab

    def _forward(self, slab: Slab, params: DeviceArray, jet: Jet, layers: Layers) -> None:
        self._encode(slab, params, jet, layers)
        forward, *_ = self._plans.products(jet.n_columns * slab.n, layers.pitch, self.deterministic)
        for k, (act, (fan_out, _)) in enumerate(zip(self._activations, self._shapes, strict=True)):
            after = layers.values[k + 1]
            to = after if act == NONE else layers.kept[k]
            forward[k](self._weights(k, params), layers.values[k], to, to)
            if act != NONE:
                kernel = self._kernel(kernels.activate_kernel, act, jet)
                kernel.over(fan_out * slab.n, to, after, fan_out, slab.n, layers.pitch)

    def _encode(self, slab: Slab, params: DeviceArray, jet: Jet, layers: Layers) -> None:
        encoding, n, pitch = self.model.encoding, slab.n, layers.pitch
        for first, stop, value in encoding.constants:
            constant = self._kernel(lambda: kernels.constant_kernel)
            to = layers.values[0] + first * pitch * FLOAT_BYTES
            constant.over((stop - first) * pitch, to, value, stop - first, n, pitch)
        for part in encoding.parts:
            seen = part._replace(first_column=0, first_param=0)  # all that the kernel depends on
            kernel = self._kernel(kernels.encode_kernel, seen, encoding.n_dims, jet)
            own = self._workspace.encoding_params(params) + part.first_param * FLOAT_BYTES
            to = layers.values[0] + part.first_column * pitch * FLOAT_BYTES
            grid = -(-n // kernel.block), len(part.encoding.partition_columns)
            kernel(grid, slab.x, n, own, to, pitch)

    def _backward(self, slab, params, jet, layers, gradients) -> None:
        n, pitch = jet.n_columns * slab.n, layers.pitch
        _, backward, weight_gradients = self._plans.products(n, pitch, self.deterministic)
        for k, (act, (fan_out, _)) in reversed(
            list(enumerate(zip(self._activations, self._shapes, strict=True)))
        ):
            dl_dy = layers.dl_dvalues[k + 1]
            if act != NONE:
                kernel = self._kernel(kernels.activate_backward_kernel, act, jet)
                kernel.over(fan_out * slab.n, dl_dy, layers.kept[k], fan_out, slab.n, pitch)
            self._add_weight_gradients(k, weight_gradients[k], layers, gradients)
            if k > 0 or self.model.encoding.n_params > 0:
                to = layers.dl_dvalues[k]
                backward[k](self._weights(k, params), dl_dy, to, to)
        self._scatter(slab, params, jet, layers, gradients)

    def _add_weight_gradients(
        self, k: int, launch: Launch, layers: Layers, gradients: Gradients
    ) -> None:
        """Add the gradient of matrix k; if deterministic, through slots added in order."""
        own, (fan_out, fan_in) = self._workspace, self._shapes[k]
        to = gradients.flat.address + self._offsets[k] * FLOAT_BYTES
        dl_dy, x = layers.dl_dvalues[k + 1], layers.values[k]
        if not own.deterministic:
            launch(dl_dy, x, to, own.unscaled)
            return
        n, n_slots = fan_out * fan_in, launch.grid[2]
        launch(dl_dy, x, own.slots.zeros(n_slots, n), own.unscaled)
        own.slots.add_to(to, n_slots, n)

    def _scatter(self, slab, params, jet, layers, gradients) -> None:
        """Add the gradients of the encoding's parameters."""
        own, encoding, pitch = self._workspace, self.model.encoding, layers.pitch
        for part in encoding.parts:
            if part.encoding.n_params == 0:
                continue
            x = slab.x + part.first_dim * FLOAT_BYTES
            values = own.encoding_params(params) + part.first_param * FLOAT_BYTES
            to = own.float_gradients(gradients) + part.first_param * FLOAT_BYTES
            dl_dy = layers.dl_dvalues[0] + part.first_column * pitch * FLOAT_BYTES
            seen = part._replace(first_column=0, first_param=0)
            if self.deterministic:
                sums = self._integer_sums(seen, jet)
                of_batch = x, encoding.n_dims, 0, slab.n, values, dl_dy, 1, pitch, 0, 1.0
                sums(slab.n, of_batch, to)
                continue
            kernel = self._kernel(kernels.scatter_kernel, seen, jet)
            grid = -(-slab.n // BLOCK), len(part.encoding.partition_columns)
            kernel(grid, x, slab.n, encoding.n_dims, values, dl_dy, pitch, to)

    def _integer_sums(self, part: Any, jet: Jet) -> IntegerSums:
        key = "integers", part, jet
        if key not in self._kernels:
            sample, rooms = kernels.jet_sample(part, jet), self._workspace.rooms
            of_encoding = part.encoding, "float32", "float32"
            self._kernels[key] = IntegerSums(self._device, rooms, sample, *of_encoding)
        return self._kernels[key]

    # Interface for models

    @exclusive
    def forward(
        self, inputs: DeviceArray, params: DeviceArray, jet: Jet, outputs: tuple[DeviceArray, ...]
    ) -> None:
        """Write values, first and second derivatives."""
        n_outputs = self.model.network.n_output_dims
        in_rows = self._kernel(kernels.outputs_kernel, n_outputs, jet)
        layers, parts = self._slabs(inputs, jet)
        for slab in parts:
            self._forward(slab, params, jet, layers)
            to = (_of_slab(slab, each) for each in outputs)
            n = slab.n * n_outputs
            in_rows.over(n, layers.values[-1], slab.n, layers.pitch, *to)

    @exclusive
    def backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        jet: Jet,
        dl_doutputs: tuple[DeviceArray | None, ...],
        gradients: Gradients,
    ) -> None:
        """Add the gradient of the parameters; None among dl_doutputs counts as zeros."""
        n_outputs = self.model.network.n_output_dims
        given = self._kernel(kernels.gradients_kernel, n_outputs, jet)
        layers, parts = self._slabs(inputs, jet)
        for slab in parts:
            self._forward(slab, params, jet, layers)
            dl_dy = (_of_slab(slab, each) for each in dl_doutputs)
            n = slab.n * n_outputs
            given.over(n, *dl_dy, slab.n, layers.pitch, layers.dl_dvalues[-1])
            self._backward(slab, params, jet, layers, gradients)


def _of_slab(slab: Slab, array: DeviceArray | None) -> int:
    """Address of a slab's rows; 0 where there is no array."""
    if array is None or array.size == 0:
        return address_of(None)
    return array.address + slab.first * (array.nbytes // len(array))
