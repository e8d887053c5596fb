"""Launches of a network's products, cached by the size of the slab."""

from collections import OrderedDict
from collections.abc import Callable

from numbanet.activations import Activation, activation
from numbanet.cuda.chain.matrix_product import MatrixProduct

NONE = activation("None")
MOST_PLANS = 32  # two for each size, of which so many are kept


class Plans:
    """Launches of a pass over a slab, by the slab's size.

    Args:
        product: makes the launches.
        activations: of the layers.
        shapes: of their matrices, without padded rows.
        first_biases: where each layer's bias begins, in numbers behind its matrix's first one.
    """

    def __init__(
        self,
        product: MatrixProduct,
        activations: tuple[Activation, ...],
        shapes: list[tuple[int, int]],
        first_biases: tuple[int, ...] = (),
    ):
        self._product, self._activations, self._shapes = product, activations, shapes
        self._first_biases = first_biases or (None,) * len(shapes)
        self._kept = OrderedDict()

    def _planned(self, make: Callable, *sizes: int) -> tuple:
        """Result of `make` for these sizes; the last few are cached."""
        key = make.__name__, *sizes
        if key not in self._kept:
            self._kept[key] = make(*sizes)
            if len(self._kept) > MOST_PLANS:
                self._kept.popitem(last=False)
        return self._kept[key]

    def passes(self, n: int, pitch: int) -> tuple:
        """Launches for n samples: forward, backward."""
        return self._planned(self._passes, n, pitch)

    def gradients(self, n: int, pitch: int, in_slots: bool) -> tuple:
        """Launches for n samples: weight gradients (in slots), backward through the output."""
        return self._planned(self._gradients, n, pitch, in_slots)

    def tangents(self, n: int, pitch: int) -> tuple:
        """Launches of products alone, forward and backward, and of activations."""
        return self._planned(self._tangents, n, pitch)

    def products(self, n: int, pitch: int, in_slots: bool) -> tuple:
        """Launches of products alone: forward, backward, weight gradients (in slots)."""
        return self._planned(self._products, n, pitch, in_slots)

    def _products(self, n: int, pitch: int, in_slots: bool) -> tuple:
        product, shapes = self._product, self._shapes
        return (
            [product.forward(NONE, *shape, n, pitch) for shape in shapes],
            [product.backward(NONE, *shape, n, pitch) for shape in shapes],
            [product.weight_gradients(*shape, n, pitch, in_slots) for shape in shapes],
        )

    def _passes(self, n: int, pitch: int) -> tuple:
        product, activations = self._product, self._activations
        forward, backward = [], []
        for k, (fan_out, fan_in) in enumerate(self._shapes):
            below = activations[k - 1] if k else NONE
            first_bias = self._first_biases[k]
            forward.append(product.forward(activations[k], fan_out, fan_in, n, pitch, first_bias))
            backward.append(product.backward(below, fan_out, fan_in, n, pitch))
        return forward, backward

    def _gradients(self, n: int, pitch: int, in_slots: bool) -> tuple:
        product, n_outputs = self._product, self._shapes[-1][0]
        weights = [product.weight_gradients(*shape, n, pitch, in_slots) for shape in self._shapes]
        return weights, product.activation_backward(self._activations[-1], n_outputs, n, pitch)

    def _tangents(self, n: int, pitch: int) -> tuple:
        product = self._product
        forward, backward, activate, activate_backward = [], [], [], []
        for act, (fan_out, fan_in) in zip(self._activations, self._shapes, strict=True):
            forward.append(product.forward(NONE, fan_out, fan_in, n, pitch))
            backward.append(product.backward(NONE, fan_out, fan_in, n, pitch))
            activate.append(product.activate_tangents(act, fan_out, n, pitch))
            activate_backward.append(product.activate_tangents_backward(act, fan_out, n, pitch))
        return forward, backward, activate, activate_backward
