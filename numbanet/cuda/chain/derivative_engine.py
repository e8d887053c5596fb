"""Derivatives of a composition's outputs on a CUDA device: a chain of kernels, in float32."""

from functools import cached_property
from typing import Any

from numbanet.composition import INPUT, Columns, Composition, ModelPart
from numbanet.cuda.chain import jet_kernels as kernels
from numbanet.cuda.chain.encoding_engine import Slab, slabs
from numbanet.cuda.chain.part_derivatives import PartDerivatives
from numbanet.cuda.chain.row_kernels import scaled_rows_kernel
from numbanet.cuda.chain.rows_of_samples import RowsOfSamples
from numbanet.cuda.launch.kernel import exclusive
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.arrays import DeviceArray, address_of, empty
from numbanet.encodings.identity import Identity
from numbanet.engine import Gradients
from numbanet.jets import Jet
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES

PITCH = 64  # rows lie a multiple of this apart


class DerivativeEngine:
    """Engine of derivatives of one composition; all methods only queue kernels.

    Between the parts go jets in rows: one for each output, with all columns of all samples.

    Args:
        device: a CudaDevice, or anything with its methods.
    """

    def __init__(self, device: Any, composition: Composition):
        self._device, self.composition = device, composition
        pairs = zip(composition.parts, composition.starts, strict=True)
        self._parts = [PartDerivatives(device, *each) for each in pairs]
        self._sources: dict[int, PartDerivatives] = dict(enumerate(self._parts))
        if any(each.source == INPUT for part in self._joining for each in part.part.inputs):
            n = composition.n_input_dims
            inputs = ModelPart("", (Columns(INPUT, 0, n),), Identity(n_dims=n), None, n)
            self._sources[INPUT] = PartDerivatives(device, inputs, 0)
        self._pitch, self._gathered = 0, None

    @property
    def _joining(self) -> list[PartDerivatives]:
        """Parts that read outputs of other parts."""
        return [part for part in self._parts if part.part.input_dims is None]

    @property
    def deterministic(self) -> bool:
        """Whether gradients are the same bits in every run; may be set."""
        return self._parts[0].workspace.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        for part in self._parts:
            part.workspace.deterministic = value

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self._pitch, self._gathered = 0, None
        for part in self._sources.values():
            part.release()

    @cached_property
    def _rows_of_samples(self) -> RowsOfSamples:
        return RowsOfSamples(self._device)

    # Memory

    def _slabs(self, inputs: DeviceArray, jet: Jet) -> list[Slab]:
        """Slabs of samples whose jets one launch takes; allocates memory for these."""
        most = MOST_ROWS // jet.n_columns
        pitch = next_multiple(jet.n_columns * min(len(inputs), most), PITCH)
        if self._pitch < pitch:
            self._pitch, self._gathered = pitch, None
            for part in self._sources.values():
                part.prepare(pitch)
            if not self._is_last(self.composition.outputs):
                shape = (self.composition.n_output_dims * pitch,)
                self._gathered = empty(shape, "f4", self._device)
        return list(slabs(inputs, most))

    def _is_last(self, columns: tuple[Columns, ...]) -> bool:
        """Whether these are all outputs of the last part, which no other part reads."""
        last = len(self._parts) - 1
        return columns == (Columns(last, 0, self._parts[last].part.n_outputs),)

    def _inputs_of(self, inputs: DeviceArray) -> dict[int, DeviceArray]:
        """Inputs that each part reads, by its number."""
        found = {}
        for k, part in self._sources.items():
            dims = part.part.input_dims
            if dims is None:
                continue
            found[k] = inputs
            if dims != tuple(range(inputs.shape[1])):
                found[k] = empty((len(inputs), len(dims)), "f4", self._device)
                at = 0
                for each in part.part.inputs:
                    given = inputs, each.first, found[k], at, each.n
                    self._rows_of_samples.copy_columns(*given, adds=False)
                    at += each.n
        return found

    # Passes over a slab

    def _forward(self, slabs_of: dict[int, Slab], params: DeviceArray, jet: Jet) -> None:
        """Compute the outputs of all parts."""
        n = next(iter(slabs_of.values())).n
        for k in sorted(self._sources):
            part = self._sources[k]
            own = params[part.own]
            if k in slabs_of:
                part.encode(slabs_of[k], own, jet)
            else:
                part.fill_constants(n)
                self._join(part, n, jet)
            part.forward(n, own, jet, self.deterministic)

    def _join(self, part: PartDerivatives, n: int, jet: Jet) -> None:
        """Write the features of a part that reads others by Identity."""
        kernel, identity = part.kernel(scaled_rows_kernel, False), part.part.encoding
        pitch, at = self._pitch, 0
        for columns in part.part.inputs:
            from_ = self._sources[columns.source].outputs + columns.first * pitch * FLOAT_BYTES
            to = part.features + at * pitch * FLOAT_BYTES
            more = identity.scale, identity.offset, columns.n, n, jet.n_columns * n, pitch
            kernel.over(columns.n * pitch, from_, to, *more)
            at += columns.n

    def _outputs(self) -> int:
        """Address of the model's outputs, gathered where they are of several parts."""
        outputs, row = self.composition.outputs, self._pitch * FLOAT_BYTES
        if self._gathered is None or len(outputs) == 1:
            return self._sources[outputs[0].source].outputs + outputs[0].first * row
        at = self._gathered.address
        for columns in outputs:
            from_ = self._sources[columns.source].outputs + columns.first * row
            self._device.copy(at, from_, columns.n * row)
            at += columns.n * row
        return self._gathered.address

    def _spread(self, n: int, jet: Jet) -> None:
        """Zero the gradients of the outputs of parts, and add those of the model's outputs."""
        row, is_last = self._pitch * FLOAT_BYTES, self._gathered is None
        for part in self._parts[:-1] if is_last else self._parts:
            self._device.zero(part.dl_doutputs, part.part.n_outputs * row)
        at = 0 if is_last else self._gathered.address
        for columns in () if is_last else self.composition.outputs:
            self._add_rows(columns, at, 1.0, n, jet)
            at += columns.n * row

    def _add_rows(self, columns: Columns, from_: int, scale: float, n: int, jet: Jet) -> None:
        """Add to the gradient of outputs of a part."""
        part, pitch = self._sources[columns.source], self._pitch
        to = part.dl_doutputs + columns.first * pitch * FLOAT_BYTES
        more = scale, 0.0, columns.n, n, jet.n_columns * n, pitch
        kernel = part.kernel(scaled_rows_kernel, True)
        kernel.over(columns.n * pitch, from_, to, *more)

    def _backward(self, slabs_of, params, jet, gradients) -> None:
        n = next(iter(slabs_of.values())).n
        for k in reversed(range(len(self._parts))):
            part = self._parts[k]
            joins, has_table = k not in slabs_of, part.part.encoding.n_params > 0
            own = params[part.own], jet, Gradients(gradients.flat[part.own])
            part.backward(n, *own, to_features=joins or has_table)
            if has_table:
                part.scatter(slabs_of[k], *own)
            at = part.dl_dfeatures
            for columns in part.part.inputs if joins else ():
                if columns.source != INPUT:
                    self._add_rows(columns, at, part.part.encoding.scale, n, jet)
                at += columns.n * self._pitch * FLOAT_BYTES

    def _passes(self, inputs: DeviceArray, jet: Jet):
        """Slabs of samples, and of the inputs of each part."""
        own = self._inputs_of(inputs)
        of_parts = {k: list(slabs(array, MOST_ROWS // jet.n_columns)) for k, array in own.items()}
        for j, slab in enumerate(self._slabs(inputs, jet)):
            yield slab, {k: mine[j] for k, mine in of_parts.items()}

    # Interface for models

    @exclusive
    def forward(
        self, inputs: DeviceArray, params: DeviceArray, jet: Jet, outputs: tuple[DeviceArray, ...]
    ) -> None:
        """Write values, first and second derivatives."""
        n_outputs = self.composition.n_output_dims
        in_rows = self._parts[-1].kernel(kernels.outputs_kernel, n_outputs, jet)
        for slab, slabs_of in self._passes(inputs, jet):
            self._forward(slabs_of, params, jet)
            to = (_of_slab(slab, each) for each in outputs)
            found = self._outputs()
            in_rows.over(slab.n * n_outputs, found, slab.n, self._pitch, *to)

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
        n_outputs, last = self.composition.n_output_dims, self._parts[-1]
        given = last.kernel(kernels.gradients_kernel, n_outputs, jet)
        for slab, slabs_of in self._passes(inputs, jet):
            self._forward(slabs_of, params, jet)
            to = last.dl_doutputs if self._gathered is None else self._gathered.address
            dl_dy = (_of_slab(slab, each) for each in dl_doutputs)
            given.over(slab.n * n_outputs, *dl_dy, slab.n, self._pitch, to)
            self._spread(slab.n, jet)
            self._backward(slabs_of, params, jet, gradients)


def _of_slab(slab: Slab, array: DeviceArray | None) -> int:
    """Address of a slab's rows; 0 where there is no array."""
    if array is None or array.size == 0:
        return address_of(None)
    return array.address + slab.first * (array.nbytes // len(array))
