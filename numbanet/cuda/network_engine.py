"""An encoded network on a CUDA device, one kernel per layer: the chain that serves every model.

What lies between the kernels is feature-major: element (i, k) of sample i at k * pitch + i, in the
precision of the parameters. Batches are taken in slabs of at most MOST_ROWS samples, so that the
memory between the kernels is bounded.
"""

from functools import cached_property, lru_cache
from typing import Any

from numbanet.activations import activation
from numbanet.cuda import loss_kernels
from numbanet.cuda.arrays import DeviceArray, empty
from numbanet.cuda.encoding_engine import FLOAT_BYTES, MOST_ROWS, EncodingPart, Rows
from numbanet.cuda.kernel import BLOCK, Kernel
from numbanet.cuda.matrix_product import MatrixProduct
from numbanet.cuda.parameter_kernels import FILL, fill_kernel
from numbanet.cuda.parameters import Collector
from numbanet.encoded_network import EncodedNetwork
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple
from numbanet.storage.views import DTYPES, ITEM_SIZES
from numbanet.target import Gradients

NONE = activation("None")
LOSS_SCALES = {"float32": 1.0, "float16": 128.0, "bfloat16": 128.0}
PITCH = 64  # samples lie a multiple of this apart
LOSS_BLOCKS = 256  # at most, of a slab
SUMS_PER_BLOCK = BLOCK // 32


class Layers:
    """The buffers between the kernels, for slabs of up to `pitch` samples, and their addresses."""

    def __init__(self, device: Any, model: EncodedNetwork, precision: str, pitch: int):
        network = model.network
        item_size = ITEM_SIZES[precision]
        self.pitch = pitch
        hidden = [network.n_neurons] * network.n_hidden_layers
        keeps, keeps_output = (each.from_input for each in network.activations)
        widths = [model.n_encoded, *hidden, network.padded_output_dims]
        kept = [*(width if keeps else 0 for width in hidden), widths[-1] if keeps_output else 0]
        widest = max(hidden, default=0)
        gradients = [model.n_encoded, widest, widest, widths[-1]]
        places, n_rows = [], 0
        for width in (*widths, *kept, *gradients):
            places.append(n_rows)
            n_rows += width
        self.memory = empty((n_rows * pitch,), DTYPES[precision], device)
        start = self.memory.address
        addresses = [start + place * pitch * item_size for place in places]
        n = len(widths)
        self.values = addresses[:n]  # encoded, hidden layers, output
        self.kept = [  # what each activation is differentiated at
            addresses[n + k] if width else self.values[k + 1] for k, width in enumerate(kept)
        ]
        self.dl_dencoded, *self.dl_dhidden, self.dl_doutput = addresses[-4:]


class NetworkEngine:
    """Evaluates an encoded network, forward and backward."""

    def __init__(self, device: Any, model: EncodedNetwork, precision: str):
        self.device, self.model, self.precision = device, model, precision
        self.loss_scale = LOSS_SCALES[precision]
        encoding, network = model.encoding, model.network
        self._parts = [
            EncodingPart(device, part, encoding.n_dims, precision, precision)
            for part in encoding.parts
        ]
        self._product = MatrixProduct(device, precision)
        self._layers = None
        self._sums = None
        hidden, output = network.activations
        self._activations = [*(hidden,) * network.n_hidden_layers, output]
        rows = [
            *(rows for rows, _ in network.shapes[:-1]),
            network.n_output_dims,
        ]  # without padding
        self._shapes = list(zip(rows, (columns for _, columns in network.shapes), strict=True))
        sizes = [rows * columns for rows, columns in network.shapes]
        self._offsets = [sum(sizes[:k]) for k in range(len(sizes))]
        self._losses = {}
        self._launches = lru_cache(8)(self._launches)

    # Kernels, each compiled when it is first needed

    @cached_property
    def _outputs_in_rows(self) -> Kernel:
        function = loss_kernels.outputs_kernel(self.model.network.n_output_dims, self.precision)
        return Kernel(self.device, function, loss_kernels.OUTPUTS)

    @cached_property
    def _external(self) -> Kernel:
        function = loss_kernels.external_kernel(self.model.network.n_output_dims, self.precision)
        return Kernel(self.device, function, loss_kernels.EXTERNAL)

    @cached_property
    def _collect(self) -> Collector:
        return Collector(self.device, self.precision, 1.0 / self.loss_scale)

    def _loss(self, loss: AbstractLoss, has_pdf: bool) -> Kernel:
        key = loss, has_pdf
        if key not in self._losses:
            n_outputs = self.model.network.n_output_dims
            function = loss_kernels.loss_kernel(loss, n_outputs, has_pdf, self.precision)
            self._losses[key] = Kernel(self.device, function, loss_kernels.LOSS)
        return self._losses[key]

    def _launches(self, n: int, pitch: int):
        """Launches for slabs of n samples: forward, backward, weight gradients, output."""
        product, activations = self._product, self._activations
        forward, backward, weights = [], [], []
        for k, (fan_out, fan_in) in enumerate(self._shapes):
            below = activations[k - 1] if k else NONE
            forward.append(product.forward(activations[k], fan_out, fan_in, n, pitch))
            backward.append(product.backward(below, fan_out, fan_in, n, pitch))
            weights.append(product.weight_gradients(fan_out, fan_in, n, pitch))
        n_outputs = self.model.network.n_output_dims
        output = product.activation_backward(activations[-1], n_outputs, n, pitch)
        return forward, backward, weights, output

    # Memory

    def _buffers(self, n: int) -> Layers:
        """The buffers between the kernels, for a batch of n; made anew where it is larger."""
        pitch = next_multiple(min(n, MOST_ROWS), PITCH)
        if self._layers is None or self._layers.pitch < pitch:
            self._layers = None  # frees the old ones before the new ones are made
            self._layers = Layers(self.device, self.model, self.precision, pitch)
            self._fill_constants()
        return self._layers

    def _fill_constants(self):
        """Write the features that are the same for all inputs; no kernel touches them again."""
        layers = self._layers
        rows = self._rows(layers.values[0], layers)
        for first, stop, value in self.model.encoding.constants:
            fill = Kernel(self.device, fill_kernel(self.precision), FILL)
            n = (stop - first) * layers.pitch
            fill(min(-(-n // BLOCK), 1024), rows.column(first), value, n)

    def partial_sums(self, n: int) -> DeviceArray:
        """Room for n partial sums of the loss."""
        if self._sums is None or self._sums.size < n:
            self._sums = empty((max(n, 1),), "f4", self.device)
        return self._sums

    def _rows(self, address: int, layers: Layers) -> Rows:
        return Rows(address, 1, layers.pitch, self.precision)

    def _encoding_params(self, params: DeviceArray) -> int:
        return params.address + self.model.network.n_params * params.dtype.itemsize

    # Passes over a slab

    def _forward(self, x: int, n: int, params: DeviceArray, layers: Layers) -> None:
        encoded = self._rows(layers.values[0], layers)
        for part in self._parts:
            part.forward(x, n, self._encoding_params(params), encoded)
        forward, *_ = self._launches(n, layers.pitch)
        for k, launch in enumerate(forward):
            weights = params.address + self._offsets[k] * params.dtype.itemsize
            launch(weights, layers.values[k], layers.values[k + 1], layers.kept[k])

    def _backward(self, x, n, first, n_all, params, layers, gradients, dl_dx) -> None:
        _, backward, weight_gradients, output = self._launches(n, layers.pitch)
        unscaled, n_network = 1.0 / self.loss_scale, self.model.network.n_params
        wants_encoded = dl_dx is not None or (
            gradients is not None and self.model.encoding.n_params > 0
        )
        dl_dy, targets = layers.dl_doutput, layers.dl_dhidden
        if self._activations[-1] != NONE:
            output(dl_dy, layers.kept[-1])
        for k in reversed(range(len(self._shapes))):
            if gradients is not None:
                to = gradients.flat.address + self._offsets[k] * FLOAT_BYTES
                weight_gradients[k](dl_dy, layers.values[k], to, unscaled)
            if k > 0 or wants_encoded:
                weights = params.address + self._offsets[k] * params.dtype.itemsize
                target = targets[k % 2] if k else layers.dl_dencoded
                kept = layers.kept[k - 1] if k else layers.values[0]
                backward[k](weights, dl_dy, target, kept)
                dl_dy = target
        rows = self._rows(layers.dl_dencoded, layers)
        for part in self._parts:
            if gradients is not None:
                factor, to = unscaled, gradients.flat.address + n_network * FLOAT_BYTES
                if gradients.in_halves:  # scaled until they are collected
                    factor, to = 1.0, gradients.scatter.address
                part.backward_params(
                    x, n, first, n_all, self._encoding_params(params), rows, factor, to,
                    gradients.in_halves,
                )  # fmt: skip
            if dl_dx is not None:
                part.backward_input(x, n, self._encoding_params(params), rows, unscaled, dl_dx)

    def _slabs(self, inputs: DeviceArray):
        n_columns = self.model.encoding.n_dims
        for first in range(0, inputs.shape[0], MOST_ROWS):
            n = min(MOST_ROWS, inputs.shape[0] - first)
            yield first, n, inputs.address + first * n_columns * FLOAT_BYTES

    # What models and trainers call

    def inference(self, inputs: DeviceArray, params: DeviceArray) -> DeviceArray:
        """The outputs, float32 [n, n_output_dims]."""
        n_outputs = self.model.network.n_output_dims
        outputs = empty((inputs.shape[0], n_outputs), "f4", self.device)
        layers = self._buffers(inputs.shape[0])
        for first, n, x in self._slabs(inputs):
            self._forward(x, n, params, layers)
            to = outputs.address + first * n_outputs * FLOAT_BYTES
            self._outputs_in_rows.over(n, layers.values[-1], n, layers.pitch, to)
        return outputs

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
        """Add to `gradients`, overwrite `dl_dinput`; returns how many partial sums the loss has.

        The gradient of the output is that of the loss, or `external` where it is given.
        """
        n_outputs = self.model.network.n_output_dims
        layers = self._buffers(inputs.shape[0])
        n_slabs = -(-inputs.shape[0] // MOST_ROWS)
        sums = self.partial_sums(n_slabs * LOSS_BLOCKS * SUMS_PER_BLOCK)
        n_elements = max(inputs.shape[0] * n_outputs, 1)
        n_sums = 0
        if dl_dinput is not None:
            self.device.zero(dl_dinput.address, dl_dinput.nbytes)
        for first, n, x in self._slabs(inputs):
            self._forward(x, n, params, layers)
            offset = first * n_outputs * FLOAT_BYTES
            y, dl_dy = layers.values[-1], layers.dl_doutput
            if loss is not None:
                grid = min(-(-n // BLOCK), LOSS_BLOCKS)
                density = 0 if pdf is None else pdf.address + offset
                self._loss(loss, pdf is not None)(
                    grid,
                    *(y, n, layers.pitch, targets.address + offset, density, dl_dy),
                    *(self.loss_scale / n_elements, sums.address + n_sums * FLOAT_BYTES),
                )
                n_sums += grid * SUMS_PER_BLOCK
            if external is not None:
                at = external.address + offset
                self._external.over(n, at, n, layers.pitch, self.loss_scale, dl_dy)
            to = None if dl_dinput is None else dl_dinput.address + x - inputs.address
            self._backward(x, n, first, inputs.shape[0], params, layers, gradients, to)
        if gradients is not None and gradients.in_halves:
            self._collect(gradients)
        return n_sums
