"""Jets through one part of a model on a CUDA device, in float32: launches of kernels."""

from dataclasses import dataclass
from typing import Any

from numbanet.activations import activation
from numbanet.composition import ModelPart
from numbanet.cuda.chain import jet_kernels as kernels
from numbanet.cuda.chain.encoding_engine import Slab
from numbanet.cuda.chain.integer_sums import IntegerSums
from numbanet.cuda.chain.layers import Layers
from numbanet.cuda.chain.matrix_product import MatrixProduct
from numbanet.cuda.chain.plans import Plans
from numbanet.cuda.chain.weights import Weights
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.workspace import Workspace
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Gradients
from numbanet.jets import Jet
from numbanet.storage.views import FLOAT_BYTES

NONE = activation("None")


def constant_kernel():
    return kernels.constant_kernel


@dataclass(frozen=True)
class NoLayers:
    """Network of a part that has none: its outputs are its inputs."""

    n_input_dims: int

    n_params, shapes, layer_activations, bias_starts = 0, (), (), ()

    @property
    def n_output_dims(self) -> int:
        return self.n_input_dims

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.n_input_dims,)


class PartDerivatives:
    """Launches for one part; `params` and `gradients` are of the part alone.

    Args:
        device: a CudaDevice, or anything with its methods.
        part: of a composition.
        start: of its parameters.
    """

    def __init__(self, device: Any, part: ModelPart, start: int):
        self._device, self.part, self.own = device, part, slice(start, start + part.n_params)
        network: Any = part.network or NoLayers(part.n_outputs)
        self.network, self.encoding = network, part.padded
        self.workspace = Workspace(device, EncodedNetwork(self.encoding, network), "float32")
        self._weights = weights = Weights(self.workspace)
        product = MatrixProduct(device, "float32")
        self._plans = Plans(product, weights.activations, weights.shapes)
        self._steps = list(zip(weights.activations, weights.shapes, strict=True))
        self._kernels, self.layers = {}, None

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self.layers = None
        self.workspace.release()

    def kernel(self, make: Any, *what: Any) -> Kernel:
        """Kernel that `make` returns, compiled when first needed."""
        key = make, *what
        if key not in self._kernels:
            self._kernels[key] = Kernel(self._device, make(*what))
        return self._kernels[key]

    def prepare(self, pitch: int) -> None:
        """Allocate the memory between the kernels, for columns of jets in rows of this pitch."""
        self.layers = None  # frees the old one before the new one is made
        self.layers = Layers(self._device, self.network, "float32", pitch, keeps_inputs=True)

    @property
    def features(self) -> int:
        """Address of the jets that the network reads; a row for each feature."""
        return self.layers.values[0]

    @property
    def outputs(self) -> int:
        return self.layers.values[-1]

    @property
    def dl_dfeatures(self) -> int:
        return self.layers.dl_dvalues[0]

    @property
    def dl_doutputs(self) -> int:
        return self.layers.dl_dvalues[-1]

    # Forward

    def fill_constants(self, n: int) -> None:
        """Write the constant features, which are rows of jets as well."""
        pitch = self.layers.pitch
        for first, stop, value in self.encoding.constants:
            constant = self.kernel(constant_kernel)
            to = self.features + first * pitch * FLOAT_BYTES
            constant.over((stop - first) * pitch, to, value, stop - first, n, pitch)

    def encode(self, slab: Slab, params: DeviceArray, jet: Jet) -> None:
        """Write the features of inputs; x of the slab are those that the part reads."""
        n, pitch, dims = slab.n, self.layers.pitch, self.part.input_dims
        self.fill_constants(n)
        for part in self.encoding.parts:
            seen = part._replace(first_column=0, first_param=0)  # all that the kernel depends on
            kernel = self.kernel(kernels.encode_kernel, seen, dims, jet)
            own = self.workspace.encoding_params(params) + part.first_param * FLOAT_BYTES
            to = self.features + part.first_column * pitch * FLOAT_BYTES
            grid = -(-n // kernel.block), len(part.encoding.partition_columns)
            kernel(grid, slab.x, n, own, to, pitch)

    def forward(self, n: int, params: DeviceArray, jet: Jet, deterministic: bool) -> None:
        """Compute the outputs from the features of n samples."""
        layers = self.layers
        forward, *_ = self._plans.products(jet.n_columns * n, layers.pitch, deterministic)
        for k, (act, (fan_out, _)) in enumerate(self._steps):
            after = layers.values[k + 1]
            to = after if act == NONE else layers.kept[k]
            forward[k](self._weights.address(k, params), layers.values[k], to, to)
            self._weights.add_bias(k, params, to, n, layers.pitch)
            if act != NONE:
                kernel = self.kernel(kernels.activate_kernel, act, jet)
                kernel.over(fan_out * n, to, after, fan_out, n, layers.pitch)

    # Backward

    def backward(
        self, n_samples: int, params: DeviceArray, jet: Jet, gradients: Gradients, to_features: bool
    ) -> None:
        """Add the gradients of the matrices, and write that of the features if it is wanted."""
        layers, n, deterministic = self.layers, jet.n_columns * n_samples, self._deterministic
        _, backward, weight_gradients = self._plans.products(n, layers.pitch, deterministic)
        for k, (act, (fan_out, _)) in reversed(list(enumerate(self._steps))):
            dl_dy = layers.dl_dvalues[k + 1]
            if act != NONE:
                kernel = self.kernel(kernels.activate_backward_kernel, act, jet)
                n_rows = fan_out * n_samples
                kernel.over(n_rows, dl_dy, layers.kept[k], fan_out, n_samples, layers.pitch)
            x = layers.values[k]
            self._weights.add_gradients(k, weight_gradients[k], dl_dy, x, gradients)
            self._weights.add_bias_gradients(k, dl_dy, n_samples, layers.pitch, gradients)
            if k > 0 or to_features:
                to = layers.dl_dvalues[k]
                backward[k](self._weights.address(k, params), dl_dy, to, to)

    @property
    def _deterministic(self) -> bool:
        return self.workspace.deterministic

    def scatter(self, slab: Slab, params: DeviceArray, jet: Jet, gradients: Gradients) -> None:
        """Add the gradients of the encoding's parameters."""
        own, encoding, pitch = self.workspace, self.encoding, self.layers.pitch
        dims = self.part.input_dims
        for part in encoding.parts:
            if part.encoding.n_params == 0:
                continue
            x = slab.x + part.first_dim * FLOAT_BYTES
            values = own.encoding_params(params) + part.first_param * FLOAT_BYTES
            to = own.float_gradients(gradients) + part.first_param * FLOAT_BYTES
            dl_dy = self.dl_dfeatures + part.first_column * pitch * FLOAT_BYTES
            seen = part._replace(first_column=0, first_param=0)
            if own.deterministic:
                sums = self._integer_sums(seen, jet)
                of_batch = x, encoding.n_dims, 0, slab.n, values, dl_dy, 1, pitch, 0, 1.0
                sums(slab.n, of_batch, to)
                continue
            kernel = self.kernel(kernels.scatter_kernel, seen, dims, jet)
            grid = -(-slab.n // BLOCK), len(part.encoding.partition_columns)
            kernel(grid, x, slab.n, encoding.n_dims, values, dl_dy, pitch, to)

    def _integer_sums(self, part: Any, jet: Jet) -> IntegerSums:
        key = "integers", part, jet
        if key not in self._kernels:
            sample = kernels.jet_sample(part, self.part.input_dims, jet)
            of_encoding = part.encoding, "float32", "float32"
            rooms = self.workspace.rooms
            self._kernels[key] = IntegerSums(self._device, rooms, sample, *of_encoding)
        return self._kernels[key]
