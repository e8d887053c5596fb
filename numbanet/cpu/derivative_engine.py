"""Derivatives of a network's outputs on the CPU: the engine that calls their kernels."""

import numpy as np

from numbanet.cpu import derivative_kernels as kernels
from numbanet.cpu.training_plan import N_GROUPS
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import AlwaysDeterministic, Gradients
from numbanet.jets import Jet
from numbanet.networks.base import next_multiple

SLAB_FLOATS = 1 << 20  # of features, which the last-level cache then holds
NOTHING = {ndim: np.empty((0,) * ndim, np.float32) for ndim in (2, 3)}


def slabs(n: int, jet: Jet, n_features: int) -> tuple[list[slice], int]:
    """Slices of n samples whose features are kept, and how many samples a group has."""
    n_tile = kernels.TILE // jet.n_columns
    most = next_multiple(max(SLAB_FLOATS // (jet.n_columns * n_features), 1), n_tile)
    group_rows = next_multiple(-(-min(n, most) // N_GROUPS), n_tile)
    return [slice(first, min(first + most, n)) for first in range(0, n, most)], group_rows


class DerivativeEngine(AlwaysDeterministic):
    """Engine of derivatives of one encoded network; arrays are float32 NumPy arrays."""

    def __init__(self, model: EncodedNetwork):
        self.model, self._key = model, model.encoding.kernel_key()
        self._numbers = np.array(model.encoding.numbers, np.int64)
        self._dims = tuple(range(model.encoding.n_dims))

    def _encode(self, inputs: np.ndarray, params: np.ndarray, jet: Jet) -> np.ndarray:
        """Jets of the features."""
        features = np.empty((jet.n_columns, len(inputs), self.model.n_encoded), np.float32)
        own = params[self.model.network.n_params :]
        kernels.encode_kernel(self._key, jet, self._dims)(inputs, own, self._numbers, features)
        return features

    def forward(
        self, inputs: np.ndarray, params: np.ndarray, jet: Jet, outputs: tuple[np.ndarray, ...]
    ) -> None:
        """Write values [n, n_outputs], first derivatives [n, n_outputs, n_dims] and second ones."""
        pieces, group_rows = slabs(len(inputs), jet, self.model.n_encoded)
        kernel = kernels.network_kernel(self.model.network, jet)
        for rows in pieces:
            features = self._encode(inputs[rows], params, jet)
            kernel(features, params, group_rows, *(each[rows] for each in outputs))

    def backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        jet: Jet,
        dl_doutputs: tuple[np.ndarray | None, ...],
        gradients: Gradients,
    ) -> None:
        """Add the gradient of the parameters; None among dl_doutputs counts as zeros."""
        network, flat = self.model.network, gradients.flat
        pieces, group_rows = slabs(len(inputs), jet, self.model.n_encoded)
        kernel = kernels.network_backward_kernel(network, jet)
        for rows in pieces:
            features = self._encode(inputs[rows], params, jet)
            given = [
                NOTHING[ndim] if each is None else each[rows]
                for ndim, each in zip((2, 3, 3), dl_doutputs, strict=True)
            ]
            kernel(features, params, group_rows, *given, flat)
            if self.model.encoding.n_params > 0:
                scatter = kernels.scatter_kernel(self._key, jet, self._dims)
                own, own_gradients = params[network.n_params :], flat[network.n_params :]
                scatter(inputs[rows], own, self._numbers, features, own_gradients)
