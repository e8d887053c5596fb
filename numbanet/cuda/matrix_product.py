"""Matrix products on a GPU without tensor cores: networks of any width, and those in float32.

Activations are stored feature-major, element (i, k) of sample i at k * pitch + i; weights row-major
[fan_out, fan_in] in the same precision. Sums are float32.

What a layer must do per sample, in each of its three products, is fan_in * fan_out multiply-adds
and the transfer of fan_in + fan_out numbers. In a cycle an H100 starts 16,900 multiply-adds and
transfers 1900 bytes, so at width 64 and float16 the arithmetic takes 1.8 times the transfer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.arguments import Arguments, pack
from numbanet.cuda.block_product import (
    BITS,
    DEPTH,
    N_THREADS,
    ROWS,
    block_position,
    block_product,
    thread_position,
)
from numbanet.cuda.threads import block_index, block_index_z, thread_index
from numbanet.device import belongs_to, device, local_array
from numbanet.storage.access import load_pair, reduce_one, store, store_pair
from numbanet.storage.views import VECTORS, float_vector

SAMPLE_COLUMNS, WEIGHT_COLUMNS = 128, 64  # of results that are samples, and weights
ONE, TWO = np.uint32(1), np.uint32(2)
NOTHING = np.uint32(0)


@device
def store_columns(array, i, low, high, both):  # the second one may be padding
    if both:
        store_pair(array, i, low, high)
    else:
        store(array, i, low)


@cache
def finish_forward(activation: Activation):
    """Device function (y, kept, i, low, high, both): activate two sums and write them."""
    act, from_input = activation.forward, activation.from_input

    @device
    @belongs_to(f"{activation.name}.forward")
    def finish_forward(y, kept, i, low, high, both):
        if from_input:
            store_columns(kept, i, low, high, both)
        store_columns(y, i, act(low), act(high), both)

    return finish_forward


@cache
def finish_backward(activation: Activation):
    """Device function (dl_dx, kept, i, low, high, both): apply the chain rule to two sums."""
    act_backward = activation.backward

    @device
    @belongs_to(f"{activation.name}.backward")
    def finish_backward(dl_dx, kept, i, low, high, both):
        first, second = load_pair(kept, i)
        low, high = act_backward(low, first), act_backward(high, second)
        store_columns(dl_dx, i, low, high, both)

    return finish_backward


def sample_product(precision: str, finish: Callable, transposed: bool):
    """Kernel (weights, x, y, kept, n_rows, depth, n, pitch): y [n_rows, n] from x [depth, n].

    Weights are [n_rows, depth] or, transposed, [depth, n_rows].
    """
    vector, bits = VECTORS[precision], BITS[precision]
    product = block_product(precision, SAMPLE_COLUMNS, not transposed, False)
    n_sums = SAMPLE_COLUMNS // 16
    n_all_sums, column_pairs, n_rows_each = ROWS // 16 * n_sums, n_sums // 2, ROWS // 16
    tile_columns = np.uint32(SAMPLE_COLUMNS)

    def sample_product(pweights, px, py, pkept, n_rows, depth, n, pitch):
        weights, x = bits(pweights, n_rows * depth), bits(px, depth * pitch)
        y, kept = vector(py, n_rows * pitch), vector(pkept, n_rows * pitch)
        first_row, first_column = block_position(n_rows, tile_columns)
        sums = local_array(n_all_sums)
        a = (weights, n_rows if transposed else depth, first_row, n_rows)
        product(a, (x, pitch, first_column, n), (NOTHING, depth), sums)
        row, column = thread_position()
        for r in range(n_rows_each):
            o = np.uint32(first_row + row + np.uint32(r // 2 * 32 + r % 2))
            for c in range(column_pairs):
                i = np.uint32(first_column + column + np.uint32(32 * c))
                if (o < n_rows) & (i < n):
                    k = r * n_sums + 2 * c
                    both = np.uint32(i + ONE) < n
                    finish(y, kept, np.uint32(o * pitch + i), sums[k], sums[k + 1], both)

    return sample_product


@cache
def forward(precision: str, activation: Activation):
    """Kernel (weights, x, y, kept, fan_out, fan_in, n, pitch): y = activation(weights x).

    Of an activation that is differentiated at its input, `kept` gets the input; otherwise it is
    not touched.
    """
    kernel = sample_product(precision, finish_forward(activation), transposed=False)
    kernel.__qualname__ = f"product_forward_{activation.name}_{precision}"
    return kernel


@cache
def backward(precision: str, activation: Activation):
    """Kernel (weights, dl_dy, dl_dx, kept, fan_in, fan_out, n, pitch).

    dl_dx is weights^T dl_dy times the slope of the activation that made x; `kept` is what that is
    differentiated at, and is not touched for "None".
    """
    kernel = sample_product(precision, finish_backward(activation), transposed=True)
    kernel.__qualname__ = f"product_backward_{activation.name}_{precision}"
    return kernel


@cache
def weight_gradients(precision: str):
    """Kernel (dl_dy, x, dl_dweights, factor, fan_out, fan_in, n, pitch, n_each).

    Adds factor * dl_dy x^T to float32 gradients; each block takes `n_each` samples.
    """
    bits = BITS[precision]
    product = block_product(precision, WEIGHT_COLUMNS, True, True)
    n_sums = WEIGHT_COLUMNS // 16
    n_all_sums, n_rows_each = ROWS // 16 * n_sums, ROWS // 16
    tile_columns = np.uint32(WEIGHT_COLUMNS)

    def weight_gradients(pdy, px, pdw, factor, fan_out, fan_in, n, pitch, n_each):
        dl_dy, x = bits(pdy, fan_out * pitch), bits(px, fan_in * pitch)
        dl_dweights = float_vector(pdw, fan_out * fan_in)
        first_row, first_column = block_position(fan_out, tile_columns)
        first_sample = np.uint32(block_index_z() * n_each)
        samples = first_sample, min(n, np.uint32(first_sample + n_each))
        sums = local_array(n_all_sums)
        a, b = (dl_dy, pitch, first_row, fan_out), (x, pitch, first_column, fan_in)
        product(a, b, samples, sums)
        row, column = thread_position()
        for r in range(n_rows_each):
            o = np.uint32(first_row + row + np.uint32(r // 2 * 32 + r % 2))
            for c in range(n_sums):
                k = np.uint32(first_column + column + np.uint32(c // 2 * 32 + c % 2))
                if (o < fan_out) & (k < fan_in):
                    i = np.uint32(o * fan_in + k)
                    reduce_one(dl_dweights, i, factor * sums[r * n_sums + c])

    weight_gradients.__qualname__ = f"product_weight_gradients_{precision}"
    return weight_gradients


@device
def row_and_column(i, pitch):
    return np.uint32(i // pitch), np.uint32(i % pitch)


@cache
def activation_backward(precision: str, activation: Activation):
    """Kernel (dl_dy, kept, n_rows, n, pitch): the chain rule through an activation, in place."""
    vector, finish = VECTORS[precision], finish_backward(activation)
    n_threads = np.uint32(N_THREADS)

    def activation_backward(pdy, pkept, n_rows, n, pitch):
        dl_dy, kept = vector(pdy, n_rows * pitch), vector(pkept, n_rows * pitch)
        i = np.uint32(TWO * (block_index() * n_threads + thread_index()))
        row, column = row_and_column(i, pitch)
        if (row < n_rows) & (column < n):
            low, high = load_pair(dl_dy, i)
            finish(dl_dy, kept, i, low, high, np.uint32(column + ONE) < n)

    activation_backward.__qualname__ = f"activation_backward_{activation.name}_{precision}"
    return activation_backward


SIZES = ("uint32",) * 4  # rows, depth, n, pitch
SAMPLE_TYPES = (*("uint64",) * 4, *SIZES)
WEIGHT_TYPES = (*("uint64",) * 3, "float32", *SIZES, "uint32")
ACTIVATION_TYPES = (*("uint64",) * 2, *("uint32",) * 3)
FEWEST_SAMPLES = 256  # of a block of weight gradients, beside which its reductions are cheap
BLOCKS_PER_MULTIPROCESSOR = 4
MOST_NUMBERS = 2**31


@dataclass(frozen=True)
class Launch:
    """A kernel with its grid and its arguments; what comes first among them may change."""

    device: object
    kernel: object
    grid: tuple[int, ...]
    arguments: Arguments

    def __call__(self, *values: float) -> None:
        """Queue the kernel with new values of its first arguments."""
        for i, value in enumerate(values):
            self.arguments[i] = value
        self.device.launch(self.kernel, self.grid, N_THREADS, 0, self.arguments)


class MatrixProduct:
    """Launches of a layer's products on a device, each for given sizes.

    Rows of `n` samples lie `pitch` apart, which is even; addresses are multiples of 8. A batch for
    which a matrix has more than 2^31 numbers is a ValueError.
    """

    def __init__(self, device, precision: str):
        self.device, self.precision = device, precision

    def forward(
        self, activation: Activation, fan_out: int, fan_in: int, n: int, pitch: int
    ) -> Launch:
        """Called with (weights, x, y, kept)."""
        grid = (n_tiles(fan_out, ROWS) * n_tiles(n, SAMPLE_COLUMNS),)
        sizes = fan_out, fan_in, n, pitch
        return self._launch(forward(self.precision, activation), SAMPLE_TYPES, grid, sizes)

    def backward(
        self, activation: Activation, fan_out: int, fan_in: int, n: int, pitch: int
    ) -> Launch:
        """Called with (weights, dl_dy, dl_dx, kept); the activation is that of the layer below."""
        grid = (n_tiles(fan_in, ROWS) * n_tiles(n, SAMPLE_COLUMNS),)
        sizes = fan_in, fan_out, n, pitch
        return self._launch(backward(self.precision, activation), SAMPLE_TYPES, grid, sizes)

    def weight_gradients(self, fan_out: int, fan_in: int, n: int, pitch: int) -> Launch:
        """Called with (dl_dy, x, dl_dweights, factor)."""
        tiles = n_tiles(fan_out, ROWS) * n_tiles(fan_in, WEIGHT_COLUMNS)
        n_blocks = max(BLOCKS_PER_MULTIPROCESSOR * self.device.n_multiprocessors // tiles, 1)
        n_each = max(DEPTH * n_tiles(n, DEPTH * n_blocks), FEWEST_SAMPLES)
        grid = (tiles, 1, n_tiles(n, n_each))
        sizes = fan_out, fan_in, n, pitch
        return self._launch(weight_gradients(self.precision), WEIGHT_TYPES, grid, sizes, n_each)

    def activation_backward(
        self, activation: Activation, n_rows: int, n: int, pitch: int
    ) -> Launch:
        """Called with (dl_dy, kept)."""
        grid = (n_tiles(n_rows * pitch, 2 * N_THREADS),)
        kernel = activation_backward(self.precision, activation)
        return self._launch(kernel, ACTIVATION_TYPES, grid, (n_rows, n, pitch))

    def _launch(self, function, types, grid, sizes, *more) -> Launch:
        *widths, _, pitch = sizes
        n_numbers = max(max(widths) * pitch, math.prod(widths))
        if n_numbers > MOST_NUMBERS:
            raise ValueError(
                f"a matrix of {n_numbers} numbers is beyond 32-bit indices; {MOST_NUMBERS} are "
                "possible, so use smaller batches"
            )
        kernel = self.device.build(function, types, block=N_THREADS)
        last = *sizes, *more
        values = *(0 for _ in types[len(last) :]), *last
        return Launch(self.device, kernel, grid, pack(types, values))


def n_tiles(size: int, tile: int) -> int:
    return -(-size // tile)
