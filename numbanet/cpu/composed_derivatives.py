"""Derivatives of a composition's outputs on the CPU, part by part.

Between the parts go jets: arrays float32 [n_columns, n, number of outputs].
"""

import numpy as np

from numbanet.composition import INPUT, Columns, Composition, ModelPart
from numbanet.cpu import derivative_kernels as kernels
from numbanet.cpu.derivative_engine import slabs
from numbanet.encodings.identity import Identity
from numbanet.engine import AlwaysDeterministic, Gradients
from numbanet.jets import Jet

Jets = dict[int, np.ndarray]  # of the outputs of parts, or their gradients, by number


class PartDerivatives:
    """Carries jets through one part; `params` and `flat` are of the part alone."""

    def __init__(self, part: ModelPart, start: int):
        self.part, self.own = part, slice(start, start + part.n_params)
        self._encoding = part.padded
        self._key = self._encoding.kernel_key()
        self._numbers = np.array(self._encoding.numbers, np.int64)

    @property
    def n_features(self) -> int:
        return self._encoding.n_outputs

    def _table(self, vector: np.ndarray) -> np.ndarray:
        return vector[self.part.n_matrix_params :]

    def _inputs(self, inputs: np.ndarray) -> np.ndarray:
        dims = self.part.input_dims
        whole = dims == tuple(range(inputs.shape[1]))
        return inputs if whole else np.ascontiguousarray(inputs[:, list(dims)])

    def features(self, inputs: np.ndarray, params: np.ndarray, jet: Jet, values: Jets):
        """The jets that the network reads."""
        features = np.zeros((jet.n_columns, len(inputs), self.n_features), np.float32)
        dims = self.part.input_dims
        if dims is not None:
            kernel = kernels.encode_kernel(self._key, jet, dims)
            kernel(self._inputs(inputs), self._table(params), self._numbers, features)
            return features
        for first, stop, value in self._encoding.constants:
            features[0, :, first:stop] = value
        identity, read = self.part.encoding, gathered(values, self.part.inputs)
        n = identity.n_outputs
        features[:, :, :n] = np.float32(identity.scale) * read
        features[0, :, :n] += np.float32(identity.offset)
        return features

    def outputs(self, features: np.ndarray, params: np.ndarray, jet: Jet, group_rows: int):
        """The jets of the outputs."""
        network, n = self.part.network, features.shape[1]
        if network is None:
            return features
        values, firsts, seconds = (
            np.empty((n, network.n_output_dims, *more), np.float32)
            for more in ((), (jet.n_dims,), (len(jet.second_columns),))
        )
        kernel = kernels.network_kernel(network, jet)
        kernel(features, params, group_rows, values, firsts, seconds)
        return np.concatenate(
            [values[None], *(each.transpose(2, 0, 1) for each in (firsts, seconds))]
        )

    def backward(self, features, params, jet: Jet, dl_dy, flat, group_rows: int) -> np.ndarray:
        """The gradient of the jets of the features, which it replaces; adds to `flat`."""
        network, first = self.part.network, 1 + jet.n_dims
        if network is None:
            return dl_dy
        firsts, seconds = (
            np.ascontiguousarray(each.transpose(1, 2, 0))
            for each in (dl_dy[1:first], dl_dy[first:])
        )
        kernel = kernels.network_backward_kernel(network, jet)
        kernel(features, params, group_rows, dl_dy[0], firsts, seconds, flat)
        return features

    def scatter(self, inputs, params, jet: Jet, dl_dfeatures, flat, gradients: Jets) -> None:
        """Add what comes through the features to `flat`, or to the gradients of what was read."""
        encoding, dims = self.part.encoding, self.part.input_dims
        if dims is None:
            own = dl_dfeatures[:, :, : encoding.n_outputs]
            add_columns(gradients, self.part.inputs, np.float32(encoding.scale) * own)
        elif encoding.n_params > 0:
            kernel = kernels.scatter_kernel(self._key, jet, dims)
            read = self._inputs(inputs), self._table(params), self._numbers
            kernel(*read, dl_dfeatures, self._table(flat))


class ComposedDerivativeEngine(AlwaysDeterministic):
    """Differentiates a composition; arrays are float32 NumPy arrays."""

    def __init__(self, composition: Composition):
        self.composition, n = composition, composition.n_input_dims
        pairs = zip(composition.parts, composition.starts, strict=True)
        self._parts = [PartDerivatives(*each) for each in pairs]
        inputs = ModelPart("", (Columns(INPUT, 0, n),), Identity(n_dims=n), None, n)
        self._input = PartDerivatives(inputs, 0)
        self._reads_inputs = any(
            columns.source == INPUT
            for part in composition.parts
            if part.input_dims is None
            for columns in part.inputs
        )

    def _slabs(self, n: int, jet: Jet):
        return slabs(n, jet, sum(part.n_features for part in self._parts))

    def _forward(self, inputs: np.ndarray, params: np.ndarray, jet: Jet, group_rows: int):
        """The jets of the outputs of all parts, and those of the features of each."""
        values, features = {}, []
        if self._reads_inputs:
            values[INPUT] = self._input.features(inputs, params[:0], jet, values)
        for k, part in enumerate(self._parts):
            own = params[part.own]
            features.append(part.features(inputs, own, jet, values))
            values[k] = part.outputs(features[k], own, jet, group_rows)
        return values, features

    def forward(
        self, inputs: np.ndarray, params: np.ndarray, jet: Jet, outputs: tuple[np.ndarray, ...]
    ) -> None:
        """Write values, first and second derivatives; see engine.DerivativeEngine."""
        pieces, group_rows = self._slabs(len(inputs), jet.distinct)
        for rows in pieces:
            found, _ = self._forward(inputs[rows], params, jet.distinct, group_rows)
            jets = gathered(found, self.composition.outputs).transpose(1, 2, 0)
            values, firsts, seconds = (each[rows] for each in outputs)
            values[...] = jets[:, :, 0]
            firsts[...] = jets[:, :, 1 : 1 + jet.n_dims]
            seconds[...] = jets[:, :, list(jet.second_columns)]

    def backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        jet: Jet,
        dl_doutputs: tuple[np.ndarray | None, ...],
        gradients: Gradients,
    ) -> None:
        """Add the gradient of the parameters; None among dl_doutputs counts as zeros."""
        pieces, group_rows = self._slabs(len(inputs), jet.distinct)
        for rows in pieces:
            given = [None if each is None else each[rows] for each in dl_doutputs]
            values, features = self._forward(inputs[rows], params, jet.distinct, group_rows)
            of_outputs = {source: np.zeros_like(each) for source, each in values.items()}
            dl_djets = self._gradient_of_jets(rows.stop - rows.start, jet, given)
            add_columns(of_outputs, self.composition.outputs, dl_djets)
            for k in reversed(range(len(self._parts))):
                part = self._parts[k]
                own, flat = params[part.own], gradients.flat[part.own]
                read = jet.distinct, of_outputs[k], flat, group_rows
                dl_dfeatures = part.backward(features[k], own, *read)
                part.scatter(inputs[rows], own, jet.distinct, dl_dfeatures, flat, of_outputs)

    def _gradient_of_jets(self, n: int, jet: Jet, given: list) -> np.ndarray:
        values, firsts, seconds = given
        jets = np.zeros((jet.n_columns, n, self.composition.n_output_dims), np.float32)
        if values is not None:
            jets[0] = values
        if firsts is not None:
            jets[1 : 1 + jet.n_dims] = firsts.transpose(2, 0, 1)
        if seconds is not None:
            for j, column in enumerate(jet.second_columns):
                jets[column] += seconds[:, :, j]
        return jets


def gathered(jets: Jets, columns: tuple[Columns, ...]) -> np.ndarray:
    """Columns of the outputs of parts, side by side."""
    parts = [jets[each.source][:, :, each.first : each.stop] for each in columns]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def add_columns(jets: Jets, columns: tuple[Columns, ...], added: np.ndarray) -> None:
    """Add to the columns that `gathered` takes."""
    at = 0
    for each in columns:
        jets[each.source][:, :, each.first : each.stop] += added[:, :, at : at + each.n]
        at += each.n
