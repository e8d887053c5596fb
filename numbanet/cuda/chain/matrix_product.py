"""Matrix products of a network's layers, of any width, each for given sizes.

Activations are stored feature-major, element (i, k) of sample i at k * pitch + i; weights row-major
[fan_out, fan_in] in the same precision. Sums are float32.
"""

import math
from dataclasses import dataclass
from functools import cache

from numbanet.activations import Activation
from numbanet.architecture import AMPERE, reaches
from numbanet.cuda.chain import fma, tensor, tensor_floats
from numbanet.cuda.chain.fma import finish_backward
from numbanet.cuda.chain.products import Product
from numbanet.cuda.driver.arguments import Arguments, pack
from numbanet.cuda.launch.threads import block_index, thread_index
from numbanet.cuda.memory.slots import BLOCKS
from numbanet.device import device
from numbanet.storage.access import load, load_pair, store
from numbanet.storage.views import VECTORS

ONE, TWO = 1, 2
N_THREADS = 256  # of the activation of the output


@device
def row_and_column(i, pitch):
    return i // pitch, i % pitch


@cache
def activation_backward(precision: str, activation: Activation):
    """Kernel (dl_dy, kept, n_rows, n, pitch): the chain rule through an activation, in place."""
    vector, finish = VECTORS[precision], finish_backward(activation)

    def activation_backward(pdy, pkept, n_rows, n, pitch):
        dl_dy, kept = vector(pdy, n_rows * pitch), vector(pkept, n_rows * pitch)
        i = TWO * (block_index() * N_THREADS + thread_index())
        row, column = row_and_column(i, pitch)
        if (row < n_rows) & (column < n):
            low, high = load_pair(dl_dy, i)
            finish(dl_dy, kept, i, low, high, column + ONE < n)

    activation_backward.__qualname__ = f"activation_backward_{activation.name}_{precision}"
    return activation_backward


@cache
def activate_tangents(precision: str, activation: Activation):
    """Kernel (before, kept, after, n_rows, n, pitch): tangents of x to those of y."""
    vector, backward = VECTORS[precision], activation.backward

    def activate_tangents(pbefore, pkept, pafter, n_rows, n, pitch):
        n_all = n_rows * pitch
        before, kept, after = vector(pbefore, n_all), vector(pkept, n_all), vector(pafter, n_all)
        i = block_index() * N_THREADS + thread_index()
        row, column = row_and_column(i, pitch)
        if (row < n_rows) & (column < n):
            store(after, i, backward(load(before, i), load(kept, i)))

    activate_tangents.__qualname__ = f"activate_tangents_{activation.name}_{precision}"
    return activate_tangents


@cache
def activate_tangents_backward(precision: str, activation: Activation):
    """Kernel (dl_dvalues, dl_dtangents, tangents, kept, n_rows, n, pitch).

    The chain rule in place, for the gradients of y and of its tangents; `tangents` are those of x.
    """
    vector, backward, second = VECTORS[precision], activation.backward, activation.second

    def activate_tangents_backward(pvalues, ptangents, pbefore, pkept, n_rows, n, pitch):
        n_all = n_rows * pitch
        dl_dvalues, dl_dtangents = vector(pvalues, n_all), vector(ptangents, n_all)
        before, kept = vector(pbefore, n_all), vector(pkept, n_all)
        i = block_index() * N_THREADS + thread_index()
        row, column = row_and_column(i, pitch)
        if (row < n_rows) & (column < n):
            x, dl_dtangent = load(kept, i), load(dl_dtangents, i)
            bend = second(x) * load(before, i)
            store(dl_dvalues, i, backward(load(dl_dvalues, i), x) + bend * dl_dtangent)
            store(dl_dtangents, i, backward(dl_dtangent, x))

    name = f"activate_tangents_backward_{activation.name}_{precision}"
    activate_tangents_backward.__qualname__ = name
    return activate_tangents_backward


SIZES = ("uint32",) * 4  # rows, depth, n, pitch
SAMPLE_TYPES = (*("uint64",) * 4, *SIZES)
BIASED_TYPES = (*SAMPLE_TYPES, "uint32")
WEIGHT_TYPES = (*("uint64",) * 3, "float32", *SIZES, *("uint32",) * 3)
ACTIVATION_TYPES = (*("uint64",) * 2, *("uint32",) * 3)
TANGENT_TYPES = (*("uint64",) * 3, *("uint32",) * 3)
TANGENT_BACKWARD_TYPES = (*("uint64",) * 4, *("uint32",) * 3)
FEWEST_SAMPLES = 256  # of a block of weight gradients, beside which its reductions are cheap
MOST_NUMBERS = 2**31
# Elsewhere tensor cores are too slow for three products of parts: GeForce's multiply tf32 at the
# rate of float32.
FLOATS_ON_TENSOR_CORES = (8, 0), (9, 0)


@dataclass(frozen=True)
class Launch:
    """Kernel with its grid and its arguments, the first of which may change."""

    device: object
    kernel: object
    grid: tuple[int, ...]
    block: int
    shared_bytes: int
    arguments: Arguments

    def __call__(self, *values: float) -> None:
        """Queue the kernel with new values of its first arguments."""
        for i, value in enumerate(values):
            self.arguments[i] = value
        self.device.launch(self.kernel, self.grid, self.block, self.shared_bytes, self.arguments)


class MatrixProduct:
    """Launches of a layer's products on a device, each for given sizes.

    Rows of `n` samples lie `pitch` apart, a multiple of 8; addresses of activations are multiples
    of 16, those of gradients of 8, and those of weights of a number. A batch for which a matrix
    has more than 2^31 numbers is a ValueError.
    """

    def __init__(self, device, precision: str):
        self.device, self.precision = device, precision
        self._products = products_for(device, precision)

    def forward(
        self, activation: Activation, fan_out: int, fan_in: int, n: int, pitch: int,
        first_bias: int | None = None,
    ) -> Launch:  # fmt: skip
        """Launch of y = activation(weights x + bias): (weights, x, y, kept).

        A bias, if there is one, begins first_bias numbers behind the first one of the weights.
        """
        biases = () if first_bias is None else (first_bias,)
        product = self._products.forward(self.precision, activation, fan_out, bool(biases))
        return self._sample_launch(product, (fan_out, fan_in, n, pitch), *biases)

    def backward(
        self, activation: Activation, fan_out: int, fan_in: int, n: int, pitch: int
    ) -> Launch:
        """Launch of the gradient of x, through the layer below: (weights, dl_dy, dl_dx, kept)."""
        product = self._products.backward(self.precision, activation, fan_in)
        return self._sample_launch(product, (fan_in, fan_out, n, pitch))

    def weight_gradients(
        self, fan_out: int, fan_in: int, n: int, pitch: int, in_slots: bool = False
    ) -> Launch:
        """Launch of the gradient of the weights: (dl_dy, x, dl_dweights, factor).

        With `in_slots` block z adds to a matrix of its own; there are `grid[2]` of these.
        """
        product = self._products.weight_gradients(self.precision, fan_out, fan_in)
        tiles = n_tiles(fan_out, product.rows) * n_tiles(fan_in, product.columns)
        n_multiprocessors = BLOCKS if in_slots else self.device.n_multiprocessors
        n_blocks = max(product.n_resident * n_multiprocessors // tiles, 1)
        n_each = max(product.depth * n_tiles(n, product.depth * n_blocks), FEWEST_SAMPLES)
        grid = (tiles, 1, n_tiles(n, n_each))
        slot = fan_out * fan_in if in_slots else 0
        sizes = fan_out, fan_in, n, pitch
        return self._launch(product, WEIGHT_TYPES, grid, sizes, n_each, grid[2], slot)

    def _sample_launch(self, product: Product, sizes, *first_bias: int) -> Launch:
        n_rows, _, n, _ = sizes
        grid = (n_tiles(n_rows, product.rows) * n_tiles(n, product.columns),)
        types = BIASED_TYPES if first_bias else SAMPLE_TYPES
        return self._launch(product, types, grid, sizes, *first_bias)

    def activation_backward(
        self, activation: Activation, n_rows: int, n: int, pitch: int
    ) -> Launch:
        """Launch of the chain rule through an activation: (dl_dy, kept)."""
        grid = (n_tiles(n_rows * pitch, 2 * N_THREADS),)
        kernel = activation_backward(self.precision, activation)
        product = Product(kernel, n_rows, pitch, 1, N_THREADS, 1)
        return self._launch(product, ACTIVATION_TYPES, grid, (n_rows, n, pitch))

    def activate_tangents(self, activation: Activation, n_rows: int, n: int, pitch: int) -> Launch:
        """Launch of activate_tangents: (before, kept, after)."""
        grid = (n_tiles(n_rows * pitch, N_THREADS),)
        product = Product(
            activate_tangents(self.precision, activation), n_rows, pitch, 1, N_THREADS, 1
        )
        return self._launch(product, TANGENT_TYPES, grid, (n_rows, n, pitch))

    def activate_tangents_backward(
        self, activation: Activation, n_rows: int, n: int, pitch: int
    ) -> Launch:
        """Launch of activate_tangents_backward: (dl_dvalues, dl_dtangents, tangents, kept)."""
        grid = (n_tiles(n_rows * pitch, N_THREADS),)
        kernel = activate_tangents_backward(self.precision, activation)
        product = Product(kernel, n_rows, pitch, 1, N_THREADS, 1)
        return self._launch(product, TANGENT_BACKWARD_TYPES, grid, (n_rows, n, pitch))

    def _launch(self, product: Product, types, grid, sizes, *more) -> Launch:
        *widths, _, pitch = sizes
        n_numbers = max(max(widths) * pitch, math.prod(widths))
        if n_numbers > MOST_NUMBERS:
            raise ValueError(
                f"a matrix of {n_numbers} numbers is beyond 32-bit indices; {MOST_NUMBERS} are "
                "possible, so use smaller batches"
            )
        block, shared_bytes = product.n_threads, product.shared_bytes
        kernel = self.device.build(product.kernel, types, block, product.max_registers)
        last = *sizes, *more
        arguments = pack(types, (*(0 for _ in types[len(last) :]), *last))
        return Launch(self.device, kernel, grid, block, shared_bytes, arguments)


def products_for(device, precision: str):
    """Module with the kernels for a device and a precision."""
    if precision != "float32" and reaches(device, AMPERE):
        return tensor
    if precision == "float32" and device.compute_capability in FLOATS_ON_TENSOR_CORES:
        return tensor_floats
    return fma


def n_tiles(size: int, tile: int) -> int:
    return -(-size // tile)
