"""Chain of kernels that evaluates any encoded network on a CUDA device: one per layer, or per pass.

Buffers between the kernels are feature-major: element (i, k) of sample i at k * pitch + i, in the
precision of the parameters. Batches are taken in slabs of at most MOST_ROWS samples, so that the
memory between the kernels is bounded.
"""

from functools import partial
from itertools import chain

from numbanet.activations import activation
from numbanet.cuda.chain import loss_kernels
from numbanet.cuda.chain.encoding_engine import EncodingPart, Rows, Slab, slabs
from numbanet.cuda.chain.float_passes import float_passes, in_turn
from numbanet.cuda.chain.layers import Layers
from numbanet.cuda.chain.matrix_product import MatrixProduct
from numbanet.cuda.chain.plans import Plans
from numbanet.cuda.chain.weights import Weights
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.parameter_kernels import fill_kernel
from numbanet.cuda.memory.workspace import Workspace, storage_of
from numbanet.engine import Batch, Gradients
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES, ITEM_SIZES, STORAGES

NONE = activation("None")
PITCH = 64  # samples lie a multiple of this apart
OUTPUTS_BLOCK = 512  # threads: 16 samples of 32 outputs, which share 32 bytes of halves
LOSS_BLOCKS = 256  # at most, of a slab
SUMS_PER_BLOCK = BLOCK // 32


class Chain:
    """Engine of an encoded network, forward and backward; all methods only queue kernels."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self.device, self.model = workspace.device, workspace.model
        self.precision = workspace.precision
        encoding = self.model.encoding
        self._parts = [
            EncodingPart(workspace, part, encoding.n_dims, self.precision, self.precision)
            for part in encoding.parts
        ]
        self._layers = None
        self._tangents = None
        self._weights = weights = Weights(workspace)
        self._losses, self._row_kernels, self._external_kernels = {}, {}, {}
        product = MatrixProduct(self.device, self.precision)
        self._plans = Plans(product, weights.activations, weights.shapes, weights.first_biases)
        self._whole = float_passes(self.device, self.model.network, self.precision)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes from which on other kernels serve a training step."""
        return tuple({size for part in self._parts for size in part.batch_sizes})

    # Kernels, each compiled when it is first needed

    def _outputs_in_rows(self, storage: str = "float32") -> Kernel:
        if storage not in self._row_kernels:
            function = loss_kernels.outputs_kernel(
                self.model.network.n_output_dims, self.precision, storage
            )
            self._row_kernels[storage] = Kernel(self.device, function, OUTPUTS_BLOCK)
        return self._row_kernels[storage]

    def _scaled(self, storage: str = "float32") -> Kernel:
        if storage not in self._external_kernels:
            function = loss_kernels.external_kernel(
                self.model.network.n_output_dims, self.precision, storage
            )
            self._external_kernels[storage] = Kernel(self.device, function)
        return self._external_kernels[storage]

    def _loss(self, loss: AbstractLoss, has_pdf: bool) -> Kernel:
        key = loss, has_pdf
        if key not in self._losses:
            n_outputs = self.model.network.n_output_dims
            function = loss_kernels.loss_kernel(loss, n_outputs, has_pdf, self.precision)
            self._losses[key] = Kernel(self.device, function)
        return self._losses[key]

    # Memory

    def _buffers(self, n: int) -> Layers:
        """Buffers between the kernels, for a batch of n; reallocated for a larger one."""
        pitch = next_multiple(min(n, MOST_ROWS), PITCH)
        if self._layers is None or self._layers.pitch < pitch:
            self._layers = None  # frees the old ones before the new ones are made
            self._workspace.rooms.generation += 1
            network, keeps = self.model.network, self._whole is not None
            layers = Layers(self.device, network, self.precision, pitch, keeps_gradients=keeps)
            self._fill_constants(layers)
            self._layers = layers
        return self._layers

    def _tangent_buffers(self, pitch: int) -> Layers:
        """Buffers of tangents and their gradients; those of constant features stay 0."""
        if self._tangents is None or self._tangents.pitch != pitch:
            self._tangents = None
            network = self.model.network
            self._tangents = Layers(self.device, network, self.precision, pitch, keeps_inputs=True)
            memory = self._tangents.memory
            self.device.zero(memory.address, memory.nbytes)
        return self._tangents

    def _fill_constants(self, layers: Layers) -> None:
        """Write the features that do not depend on the inputs; no kernel overwrites them."""
        rows = self._rows(layers.values[0], layers)
        for first, stop, value in self.model.encoding.constants:
            fill = Kernel(self.device, fill_kernel(self.precision))
            n = (stop - first) * layers.pitch
            fill(min(-(-n // BLOCK), 1024), rows.column(first), value, n)

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self._layers = self._tangents = None

    def _rows(self, address: int, layers: Layers) -> Rows:
        return Rows(address, 1, layers.pitch, self.precision)

    def _gradients(self, n: int, pitch: int) -> tuple:
        return self._plans.gradients(n, pitch, self._workspace.deterministic)

    # Passes over a slab

    def _forward(self, slab: Slab, params: DeviceArray, layers: Layers) -> None:
        encoded = self._rows(layers.values[0], layers)
        for part in self._parts:
            part.forward(slab, self._workspace.encoding_params(params), encoded)
        if self._whole is not None:
            self._whole.forward(slab.n, params.address, layers)
            return
        forward, _ = self._plans.passes(slab.n, layers.pitch)
        for k, launch in enumerate(forward):
            weights = self._weights.address(k, params)
            launch(weights, layers.values[k], layers.values[k + 1], layers.kept[k])

    def _backward(self, slab, params, layers, gradients, dl_dx) -> None:
        weight_gradients, output = self._gradients(slab.n, layers.pitch)
        has_params = gradients is not None and self.model.encoding.n_params > 0
        wants_encoded = dl_dx is not None or has_params
        if self._weights.activations[-1] != NONE:
            output(layers.dl_dvalues[-1], layers.kept[-1])
        backward_encoding = partial(self._encoding_backward, slab, params, layers, gradients, dl_dx)
        works = self._weights.works(weight_gradients, slab.n, layers, gradients)
        additions = self._weights.slot_additions(weight_gradients, gradients)
        if self._whole is not None:
            self._whole.backward(slab.n, params.address, layers, wants_encoded)
            queued = [*chain(*works), *additions]
            branches = [partial(in_turn, queued)] if queued else []
            self.device.in_parallel(backward_encoding, *branches)
            return
        _, backward = self._plans.passes(slab.n, layers.pitch)
        for k in reversed(range(len(self._weights.shapes))):
            if k > 0 or wants_encoded:
                kept = layers.kept[k - 1] if k else layers.values[0]
                of_layer = self._weights.address(k, params), layers.dl_dvalues[k + 1]
                works[k].insert(0, partial(backward[k], *of_layer, layers.dl_dvalues[k], kept))
            self.device.in_parallel(*works[k])
        self.device.in_parallel(backward_encoding, *additions)

    def _encoding_backward(self, slab, params, layers, gradients, dl_dx) -> None:
        encoding_params = self._workspace.encoding_params(params)
        rows = self._rows(layers.dl_dvalues[0], layers)
        for part in self._parts:
            if gradients is not None:
                to, factor = self._workspace.encoding_gradients(gradients)
                part.backward_params(slab, encoding_params, rows, factor, to, gradients.in_halves)
            if dl_dx is not None:
                part.backward_input(slab, encoding_params, rows, self._workspace.unscaled, dl_dx)

    def _tangents_forward(self, slab, params, layers, tangents, direction, dl_dx) -> None:
        """Compute the tangents of all layers, after _forward; zeroes dl_dx."""
        encoding_params = self._workspace.encoding_params(params)
        features, to = (self._rows(each.values[0], layers) for each in (layers, tangents))
        for part in self._parts:
            # Tangents do not depend on the gradient, for which the features stand in here.
            part.double_backward_input(slab, encoding_params, features, 1.0, direction, to, dl_dx)
        self.device.zero(dl_dx, slab.n * self.model.encoding.n_dims * FLOAT_BYTES)
        forward, _, activate, _ = self._plans.tangents(slab.n, layers.pitch)
        for k in range(len(self._weights.shapes)):
            before, after = tangents.kept[k], tangents.values[k + 1]
            forward[k](self._weights.address(k, params), tangents.values[k], before, before)
            activate[k](before, layers.kept[k], after)

    def _tangents_backward(
        self, slab, params, layers, tangents, direction, gradients, dl_dx
    ) -> None:
        """Backpropagate the gradients of the outputs and of their tangents to everything before."""
        n, pitch = slab.n, layers.pitch
        _, backward, _, activate_backward = self._plans.tangents(n, pitch)
        weight_gradients, _ = self._gradients(n, pitch)
        for k in reversed(range(len(self._weights.shapes))):
            dl_dvalues, dl_dtangents = layers.dl_dvalues[k + 1], tangents.dl_dvalues[k + 1]
            activate_backward[k](dl_dvalues, dl_dtangents, tangents.kept[k], layers.kept[k])
            for half in (layers, tangents):
                dl_dy, x_k = half.dl_dvalues[k + 1], half.values[k]
                if gradients is not None:
                    of_layer = k, weight_gradients[k], dl_dy, x_k, gradients
                    self._weights.add_gradients(*of_layer)
                backward[k](self._weights.address(k, params), dl_dy, half.dl_dvalues[k], x_k)
            if gradients is not None:  # tangents have no bias
                self._weights.add_bias_gradients(k, dl_dvalues, n, pitch, gradients)
        self._encoding_backward(slab, params, layers, gradients, dl_dx)
        rows = self._rows(tangents.dl_dvalues[0], layers)
        unchanged = self._rows(tangents.values[0], layers)
        own = self._workspace
        given = slab, own.encoding_params(params), rows, own.unscaled, direction
        for part in self._parts:
            part.double_backward_input(*given, unchanged, dl_dx)
            if gradients is not None:
                part.double_backward_params(*given, own.float_gradients(gradients))

    # Interface for models and trainers

    def inference(self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray) -> None:
        """Write the outputs, float32 [n, n_output_dims]."""
        n_outputs = self.model.network.n_output_dims
        layers = self._buffers(inputs.shape[0])
        for slab in slabs(inputs, MOST_ROWS):
            self._forward(slab, params, layers)
            to = outputs.address + slab.first * n_outputs * outputs.dtype.itemsize
            in_rows = self._outputs_in_rows(STORAGES[outputs.dtype])
            in_rows.over(slab.n * n_outputs, layers.values[-1], slab.n, layers.pitch, to)

    def forward_backward(
        self,
        batch: Batch,
        params: DeviceArray,
        loss: AbstractLoss | None,
        gradients: Gradients | None,
        dl_dinput: DeviceArray | None,
    ) -> int:
        """Add to `gradients`, overwrite `dl_dinput`; returns how many partial sums the loss has."""
        layers = self._buffers(len(batch))
        n_slabs = -(-len(batch) // MOST_ROWS)
        self._workspace.partial_sums(n_slabs * LOSS_BLOCKS * SUMS_PER_BLOCK)
        n_sums = 0
        if dl_dinput is not None:
            self.device.zero(dl_dinput.address, dl_dinput.nbytes)
        for slab in slabs(batch.inputs, MOST_ROWS):
            works = [partial(self._forward, slab, params, layers)]
            if gradients is not None and self._workspace.deterministic:
                weight_gradients, _ = self._gradients(slab.n, layers.pitch)
                works.append(partial(self._weights.clear_slots, weight_gradients))
            self.device.in_parallel(*works)
            n_sums += self._output_gradients(batch, slab, loss, layers, n_sums)
            to = None if dl_dinput is None else slab.of(dl_dinput)
            self._backward(slab, params, layers, gradients, to)
        return n_sums

    def _output_gradients(self, batch, slab, loss, layers, n_sums) -> int:
        """Write the gradients of a slab's outputs; returns how many partial sums its loss has."""
        own, n, dl_dy, n_more = self._workspace, slab.n, layers.dl_dvalues[-1], 0
        if loss is not None:
            grid = min(-(-n // BLOCK), LOSS_BLOCKS)
            pdf = 0 if batch.pdf is None else slab.of(batch.pdf)
            sums = own.partial_sums(0).address + n_sums * FLOAT_BYTES
            self._loss(loss, batch.pdf is not None)(
                grid,
                *(layers.values[-1], n, layers.pitch, slab.of(batch.targets), pdf),
                *(dl_dy, own.loss_scale / own.n_elements(batch), sums),
            )
            n_more = grid * SUMS_PER_BLOCK
        if batch.external_dl_dy is not None:
            scaled = self._scaled(storage_of(batch.external_dl_dy))
            scaled.over(n, slab.of(batch.external_dl_dy), n, layers.pitch, own.loss_scale, dl_dy)
        return n_more

    def double_backward(
        self,
        inputs: DeviceArray,
        params: DeviceArray,
        dl_dy: DeviceArray,
        dl_ddl_dx: DeviceArray,
        gradients: Gradients | None,
        outputs: tuple[DeviceArray, DeviceArray],
    ) -> None:
        """Write the gradients with respect to dl_dy and the inputs; add to `gradients`."""
        layers, n_outputs = self._buffers(inputs.shape[0]), self.model.network.n_output_dims
        pitch = layers.pitch
        tangents = self._tangent_buffers(pitch)
        n_bytes = self.model.network.padded_output_dims * pitch * ITEM_SIZES[self.precision]
        dl_ddl_dy, dl_dx = outputs
        for slab in slabs(inputs, MOST_ROWS):
            self._forward(slab, params, layers)
            n, direction, to = slab.n, slab.of(dl_ddl_dx), slab.of(dl_dx)
            self._tangents_forward(slab, params, layers, tangents, direction, to)
            at = slab.of(dl_ddl_dy)
            self._outputs_in_rows().over(n * n_outputs, tangents.values[-1], n, pitch, at)
            start, scale = tangents.dl_dvalues[-1], self._workspace.loss_scale
            self._scaled().over(n, slab.of(dl_dy), n, pitch, scale, start)
            self.device.zero(layers.dl_dvalues[-1], n_bytes)
            self._tangents_backward(slab, params, layers, tangents, direction, gradients, to)
