"""Products of a layer without tensor cores: for older GPUs, and for float32 on most.

Per sample a layer needs, in each of its three products, fan_in * fan_out multiply-adds
and the transfer of fan_in + fan_out numbers. In a cycle an H100 starts 16,900 multiply-adds and
transfers 1900 bytes, so at width 64 and float16 the arithmetic takes 1.8 times the transfer.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.chain.biases import (
    add_to_fma_sums,
    address_alone,
    address_of_both,
    with_bias,
)
from numbanet.cuda.chain.fma_block import (
    BITS,
    DEPTH,
    N_THREADS,
    ROWS,
    block_product,
    thread_position,
)
from numbanet.cuda.chain.products import Product, block_position
from numbanet.cuda.launch.threads import block_index_z
from numbanet.cuda.memory.slots import slot_address
from numbanet.device import belongs_to, device, local_array, nothing, unrolled
from numbanet.storage.access import load_pair, reduce_one, store, store_pair
from numbanet.storage.views import VECTORS, float_vector

SAMPLE_COLUMNS, WEIGHT_COLUMNS = 128, 64  # of results that are samples, and weights
N_RESIDENT = 4  # blocks of a multiprocessor
ONE = 1
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


def sample_product(precision: str, finish: Callable, transposed: bool, biased: bool = False):
    """Product (weights, x, y, kept, n_rows, depth, n, pitch): y [n_rows, n] from x [depth, n].

    Weights are [n_rows, depth] or, transposed, [depth, n_rows]. Biased, one more argument says
    where the bias is, in numbers from the weights.
    """
    vector, bits = VECTORS[precision], BITS[precision]
    product = block_product(precision, SAMPLE_COLUMNS, not transposed, False)
    n_sums = SAMPLE_COLUMNS // 16
    n_all_sums, column_pairs = ROWS // 16 * n_sums, n_sums // 2
    n_pairs = n_all_sums // 2
    address, add = address_alone, nothing
    if biased:
        address, add = address_of_both, add_to_fma_sums(precision, SAMPLE_COLUMNS)
    position = block_position(ROWS, SAMPLE_COLUMNS)

    @device
    def finish_pair(k, sums, place, ends, y, kept):
        first_row, first_column, row, column = place
        n_rows, n, pitch = ends
        r, c = k // column_pairs, k % column_pairs
        o = first_row + row + (r // 2 * 32 + r % 2)
        i = first_column + column + 32 * c
        if (o < n_rows) & (i < n):
            both = i + ONE < n
            finish(y, kept, o * pitch + i, sums[2 * k], sums[2 * k + 1], both)

    def sample_product(pweights, px, py, pkept, n_rows, depth, n, pitch):
        weights, x = bits(address(pweights), n_rows * depth), bits(px, depth * pitch)
        y, kept = vector(py, n_rows * pitch), vector(pkept, n_rows * pitch)
        first_row, first_column = position(n_rows)
        sums = local_array(n_all_sums)
        a = (weights, n_rows if transposed else depth, first_row, n_rows)
        product(a, (x, pitch, first_column, n), (NOTHING, depth), sums)
        add(sums, first_row, n_rows, pweights)
        place = first_row, first_column, *thread_position()
        ends = n_rows, n, pitch
        unrolled(n_pairs, finish_pair, sums, place, ends, y, kept)

    kernel = with_bias(sample_product) if biased else sample_product
    return Product(kernel, ROWS, SAMPLE_COLUMNS, DEPTH, N_THREADS, N_RESIDENT)


@cache
def forward(precision: str, activation: Activation, fan_out: int, biased: bool = False) -> Product:
    """Kernel (weights, x, y, kept, fan_out, fan_in, n, pitch): y = activation(weights x).

    Of an activation that is differentiated at its input, `kept` gets the input; otherwise it is
    not touched. Biased, it is activation(weights x + bias), with first_bias as the last argument.
    """
    finish = finish_forward(activation)
    product = sample_product(precision, finish, transposed=False, biased=biased)
    what = "biased_" if biased else ""
    return product.named(f"product_forward_{what}{activation.name}_{precision}")


@cache
def backward(precision: str, activation: Activation, fan_in: int) -> Product:
    """Kernel (weights, dl_dy, dl_dx, kept, fan_in, fan_out, n, pitch).

    dl_dx is weights^T dl_dy times the slope of the activation that made x; `kept` is what that is
    differentiated at, and is not touched for "None".
    """
    product = sample_product(precision, finish_backward(activation), transposed=True)
    return product.named(f"product_backward_{activation.name}_{precision}")


@cache
def weight_gradients(precision: str, fan_out: int, fan_in: int) -> Product:
    """Kernel (dl_dy, x, dl_dweights, factor, fan_out, fan_in, n, pitch, n_each, n_parts,
    slot).

    Adds factor * dl_dy x^T to float32 gradients; each block takes one of n_parts of `n_each`
    samples, and adds them `slot` numbers behind those of the one before.
    """
    bits = BITS[precision]
    product = block_product(precision, WEIGHT_COLUMNS, True, True)
    n_sums = WEIGHT_COLUMNS // 16
    n_all_sums, n_rows_each = ROWS // 16 * n_sums, ROWS // 16
    position = block_position(ROWS, WEIGHT_COLUMNS)

    def weight_gradients(
        pdy, px, pdw, factor, fan_out, fan_in, n, pitch, n_each, n_parts, slot,
    ):  # fmt: skip
        part = block_index_z() % n_parts
        dl_dy, x = bits(pdy, fan_out * pitch), bits(px, fan_in * pitch)
        mine = slot_address(pdw, part, slot)
        dl_dweights = float_vector(mine, fan_out * fan_in)
        first_row, first_column = position(fan_out)
        first_sample = part * n_each
        samples = first_sample, min(n, first_sample + n_each)
        sums = local_array(n_all_sums)
        a, b = (dl_dy, pitch, first_row, fan_out), (x, pitch, first_column, fan_in)
        product(a, b, samples, sums)
        row, column = thread_position()
        for r in range(n_rows_each):
            o = first_row + row + (r // 2 * 32 + r % 2)
            for c in range(n_sums):
                k = first_column + column + (c // 2 * 32 + c % 2)
                if (o < fan_out) & (k < fan_in):
                    i = o * fan_in + k
                    reduce_one(dl_dweights, i, factor * sums[r * n_sums + c])

    tile = ROWS, WEIGHT_COLUMNS, DEPTH, N_THREADS, N_RESIDENT
    return Product(weight_gradients, *tile).named(f"product_weight_gradients_{precision}")
