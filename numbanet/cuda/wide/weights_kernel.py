"""Second kernel of wide training: the gradients of all weights, dW[k] = G[k]^T A[k].

G are the gradients of a layer before its activation, A the layer's inputs, both in units of 32
samples; see wide_layout.py. A block adds up one matrix in registers, over every so many stages of
two units, of which one is on its way to shared memory while another one is multiplied.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FRAGMENTS
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    block_index,
    block_index_y,
    blocks_per_grid,
    thread_index,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.slots import slot_address
from numbanet.cuda.wide.layout import BLOCK_BYTES, MATRIX_BYTES, ROW_BYTES, UNITS, WideLayout
from numbanet.device import (
    ZERO,
    device,
    four_from,
    local_array,
    nothing,
    set_four,
    uint32_view,
    unrolled,
)
from numbanet.storage.access import reduce_pair
from numbanet.storage.views import float_vector
from numbanet.tiles.copies import PIECE
from numbanet.tiles.fragments import ROWS, add_outer_product
from numbanet.tiles.instructions import (
    close_group,
    copy_words,
    ldmatrix_transposed,
    shared_memory,
    wait_for_older_groups,
)

# units, stages, factor, gradients
N_WARPS, N_STAGES = 8, 2  # of a block, and stages in shared memory
N_THREADS = WARP * N_WARPS
LANES = WARP


@dataclass(frozen=True)
class Tile:
    """Matrix of m x n blocks of 16 x 16, and its division among a block's warps."""

    m: int
    n: int

    @property
    def across(self) -> int:
        """Warps side by side: the number that minimises the blocks per warp, then the loads."""

        def cost(across):
            rows, columns = -(-self.m * across // N_WARPS), -(-self.n // across)
            return rows * columns, rows + columns

        return min((1, 2, 4, 8), key=cost)

    @property
    def rows(self) -> int:
        """Rows of 16 x 16 blocks per warp."""
        return -(-self.m * self.across // N_WARPS)

    @property
    def columns(self) -> int:
        return -(-self.n // self.across)

    @property
    def is_whole(self) -> bool:
        """Whether every warp has the same number of blocks."""
        return self.rows * self.columns * N_WARPS == self.m * self.n

    @property
    def n_bytes(self) -> int:
        """Bytes of a stage."""
        return UNITS * FRAGMENTS * BLOCK_BYTES * (self.m + self.n)


def tile_of(layout: WideLayout, k: int) -> Tile:
    n, m = (width // ROWS for width in layout.widths[k : k + 2])
    return Tile(m, n)


def gradients_shared_bytes(layout: WideLayout) -> int:
    """Bytes of shared memory: the stages of the largest matrix."""
    return N_STAGES * max(tile_of(layout, k).n_bytes for k in range(layout.n_hidden + 1))


@cache
def copy_units(n_unit_bytes: int, unit_bytes: int):
    """Device function (thread, source, target): start the copy of a layer's part of a stage.

    The source is that of its first unit.
    """
    per_unit = n_unit_bytes // PIECE
    n_pieces = UNITS * per_unit
    n_each = -(-n_pieces // N_THREADS)
    whole = n_pieces % N_THREADS == 0
    step = np.uint64(unit_bytes)

    @device
    def copy_piece(j, thread, source, target):
        k = thread + N_THREADS * j
        if whole or k < n_pieces:
            unit, piece = k // per_unit, k % per_unit
            offset = np.uint64(unit) * step + np.uint64(piece * PIECE)
            copy_words(target + k * PIECE, np.uint64(source + offset))

    @device
    def copy_units(thread, source, target):
        unrolled(n_each, copy_piece, thread, source, target)

    return copy_units


@cache
def add_stage(precision: str, tile: Tile):
    """Device function (row, column, a_address, b_address, sums): add a stage's product, for a warp.

    From the warp's first row and column of blocks; the addresses are the lane's.
    """
    m, n, n_rows, n_columns, whole = tile.m, tile.n, tile.rows, tile.columns, tile.is_whole
    add, n_words, n_fragments = add_outer_product(precision), 4 * n_rows, UNITS * FRAGMENTS

    @device
    def load_rows(j, row, address, a):
        if whole or row + j < m:
            block = ldmatrix_transposed(address + BLOCK_BYTES * j)
            set_four(a, 4 * j, block)

    @device
    def add_block(j, k, row, a, b, sums):
        if whole or row + j < m:
            block = four_from(a, 4 * j)
            add(block, b, sums, 8 * (n_columns * j + k))

    @device
    def add_column(k, row, column, address, a, sums):
        if whole or column + k < n:
            b = ldmatrix_transposed(address + BLOCK_BYTES * k)
            unrolled(n_rows, add_block, k, row, a, b, sums)

    @device
    def add_fragment(k, row, column, a_address, b_address, sums):
        a = uint32_view(local_array(n_words))
        a_address += BLOCK_BYTES * m * k
        b_address += BLOCK_BYTES * n * k
        unrolled(n_rows, load_rows, row, a_address, a)
        unrolled(n_columns, add_column, row, column, b_address, a, sums)

    @device
    def add_stage(row, column, a_address, b_address, sums):
        unrolled(n_fragments, add_fragment, row, column, a_address, b_address, sums)

    return add_stage


@cache
def flush(tile: Tile):
    """Device function (first, row, column, lane, sums, factor, gradients): add to global memory.

    The matrix' gradients begin at `first`.
    """
    m, n, n_columns = tile.m, tile.n, tile.columns
    n_pairs, fan_in = 4 * tile.rows * n_columns, ROWS * n

    @device
    def flush_pair(q, first, row, column, lane, sums, factor, gradients):
        j, part = q // 4, q % 4
        row += j // n_columns
        column += j % n_columns
        if (row < m) & (column < n):
            row = row * ROWS + lane // 4 + 8 * (part % 2)
            column = column * ROWS + lane % 4 * 2
            column += 8 * (part // 2)
            i = first + row * fan_in + column
            reduce_pair(gradients, i, factor * sums[2 * q], factor * sums[2 * q + 1])

    @device
    def flush(first, row, column, lane, sums, factor, gradients):
        unrolled(n_pairs, flush_pair, first, row, column, lane, sums, factor, gradients)

    return flush


@device
def clear(k, sums):
    sums[k] = ZERO


@device
def lane_of_a(lane):
    """Offset of a lane's row in a block, for add_outer_product: at columns + 8, then rows + 8."""
    second, third = (lane >> 3) & 1, lane >> 4
    place = second * (2 * MATRIX_BYTES) + third * MATRIX_BYTES
    return place + (lane & 7) * ROW_BYTES


@cache
def matrix_gradients(layout: WideLayout, precision: str, k: int):
    """Device function (past, thread, units, n_stages, factor, gradients) for matrix k + past.

    That one has the same shape.
    """
    tile, (fan_out, fan_in) = tile_of(layout, k), layout.model.network.shapes[k]
    n_rows, n_columns, across = tile.rows, tile.columns, tile.across
    n_sums, stage_bytes = 8 * n_rows * n_columns, tile.n_bytes
    copy_a = copy_units(layout.sizes[k + 1], layout.unit_bytes)
    copy_b = copy_units(layout.sizes[k], layout.unit_bytes)
    a_place, b_place = np.uint64(layout.gradients[k + 1]), np.uint64(layout.values[k])
    b_of_stage, layer_bytes = UNITS * layout.sizes[k + 1], np.uint64(layout.sizes[k])
    per_stage, n_weights = np.uint64(UNITS * layout.unit_bytes), fan_out * fan_in
    start = sum(rows * columns for rows, columns in layout.model.network.shapes[:k])
    add, add_to_memory = add_stage(precision, tile), flush(tile)

    @device
    def copy(stage, thread, layer, target):
        source = np.uint64(layer + np.uint64(stage) * per_stage)
        copy_a(thread, np.uint64(source + a_place), target)
        copy_b(thread, np.uint64(source + b_place), target + b_of_stage)

    @device
    def matrix_gradients(past, thread, units, n_stages, factor, gradients):
        shared = shared_memory()
        warp, lane = thread // LANES, thread % LANES
        row = warp // across * n_rows
        column = warp % across * n_columns
        a_address = shared + row * BLOCK_BYTES + lane_of_a(lane)
        b_address = shared + column * BLOCK_BYTES + lane * ROW_BYTES
        b_address += b_of_stage
        layer = np.uint64(units + np.uint64(past) * layer_bytes)
        stage, step = block_index(), blocks_per_grid()
        sums = local_array(n_sums)
        unrolled(n_sums, clear, sums)
        copy(stage, thread, layer, shared)
        close_group()
        if stage + step < n_stages:
            copy(stage + step, thread, layer, shared + stage_bytes)
        close_group()
        offset = np.uint32(0)
        while stage < n_stages:
            wait_for_older_groups()
            barrier()
            here = a_address + offset, b_address + offset
            add(row, column, here[0], here[1], sums)
            barrier()
            after_next = stage + 2 * step
            if after_next < n_stages:
                copy(after_next, thread, layer, shared + offset)
            close_group()
            stage, offset = stage + step, stage_bytes - offset
        first = start + past * n_weights
        add_to_memory(first, row, column, lane, sums, factor, gradients)

    return matrix_gradients


@cache
def wide_gradients_kernel(layout: WideLayout, precision: str):
    """(units, n_stages, factor, gradients, slot), on a grid of (at most n_stages, matrices) blocks.

    Adds factor times the gradients of all weights, those of block x x times `slot` numbers on.
    """
    n_hidden, n_params = layout.n_hidden, layout.model.network.n_params
    of_first, of_last = (matrix_gradients(layout, precision, k) for k in (0, n_hidden))
    of_middle = matrix_gradients(layout, precision, 1) if n_hidden > 1 else nothing

    def wide_gradients(
        punits: Address, n_stages: UInt, factor: Float, pgradients: Address, slot: UInt
    ):
        k, thread, none = block_index_y(), thread_index(), np.uint32(0)
        gradients = float_vector(slot_address(pgradients, block_index(), slot), n_params)
        if k == none:
            of_first(none, thread, punits, n_stages, factor, gradients)
        elif k < n_hidden:
            past = k - 1
            of_middle(past, thread, punits, n_stages, factor, gradients)
        else:
            of_last(none, thread, punits, n_stages, factor, gradients)

    wide_gradients.__qualname__ = f"wide_gradients_{layout.widths[1]}_{precision}"
    return wide_gradients
