"""Gradients of a network's weights, which the threads of a fused kernel add up in registers."""

from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FusedLayout
from numbanet.device import device, unrolled
from numbanet.storage.access import reduce_pair
from numbanet.storage.memory_access import store_two_floats
from numbanet.tiles.copies import PIECE_HALVES
from numbanet.tiles.fragments import ROWS, add_outer_product, lane_columns, lane_rows
from numbanet.tiles.instructions import ldmatrix_transposed
from numbanet.tiles.warpgroups import WARPGROUP, of_first_lane, warpgroup_outer_product


@cache
def weight_gradients(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, warp, lane, sums): add the group's gradient of matrix k to sums.

    Each warp, or each warpgroup, has a part of it, over all samples of the group.
    """
    if layout.by_warpgroups(k):
        return gradients_by_warpgroups(layout, precision, k)
    m, n = layout.blocks[k]
    n_warps, n_mine, first = layout.n_warps, layout.blocks_per_warp[k], layout.first_sums[k]
    out_pitch, in_pitch, piece = *layout.row_pitches[k : k + 2][::-1], layout.piece_pitch
    outputs, inputs = layout.rows[k + 1], layout.rows[k]
    of_outputs, of_inputs = lane_columns(out_pitch, piece), lane_rows(in_pitch, piece)
    add, block_bytes = add_outer_product(precision), 2 * piece
    n_samples = layout.group_threads
    n_steps = n_samples // ROWS
    out_step, in_step = ROWS * out_pitch, ROWS * in_pitch
    same_row = n_warps % m == 0  # all of a warp's blocks are of the same outputs
    whole = m * n % n_warps == 0

    @device
    def add_block(j, warp, a_address, b_address, a, sums):
        block = warp + n_warps * j
        if whole or block < m * n:
            row, column = block % m, block // m
            b = ldmatrix_transposed(b_address + column * block_bytes)
            if same_row:
                add(a, b, sums, first + 8 * j)
            else:
                other = ldmatrix_transposed(a_address + row * block_bytes)
                add(other, b, sums, first + 8 * j)

    @device
    def weight_gradients(shared, warp, lane, sums):
        first_row = warp // n_warps * n_samples
        warp %= n_warps
        a_address = shared + outputs + of_outputs(lane)
        b_address = shared + inputs + of_inputs(lane)
        a_address += first_row * out_pitch
        b_address += first_row * in_pitch
        a_row = warp % m * block_bytes if same_row else np.uint32(0)
        for _ in range(n_steps):
            a = ldmatrix_transposed(a_address + a_row)
            unrolled(n_mine, add_block, warp, a_address, b_address, a, sums)
            a_address, b_address = a_address + out_step, b_address + in_step

    return weight_gradients


def columns_of_warpgroup(layout: FusedLayout, k: int) -> int:
    """Columns of matrix k whose gradients a warpgroup adds up, each for all 64 outputs."""
    return layout.widths[k] * WARPGROUP // layout.n_warps


def gradients_by_warpgroups(layout: FusedLayout, precision: str, k: int):
    n_warps, n_samples, piece = layout.n_warps, layout.group_threads, layout.piece_pitch
    outputs, inputs, row_bytes = layout.rows[k + 1], layout.rows[k], layout.row_pitches[k]
    n_columns, first = columns_of_warpgroup(layout, k), layout.first_sums[k]
    add = warpgroup_outer_product(precision, n_columns, n_samples // ROWS, piece, first)
    part_bytes = np.uint32(n_columns // PIECE_HALVES * piece)

    @device
    def weight_gradients(shared, warp, lane, sums):
        warp = of_first_lane(warp)
        place = shared + warp // n_warps * n_samples * row_bytes
        part = warp % n_warps // WARPGROUP
        add(place + outputs, place + inputs + part * part_bytes, sums)

    return weight_gradients


@cache
def flush_gradients(layout: FusedLayout, k: int, writes: bool):
    """Device function (warp, lane, sums, gradients): the sums of matrix k, to global memory.

    They are added to what is there, or written.
    """
    put_pair = store_two_floats if writes else reduce_pair
    n_warps, first, place = layout.n_warps, layout.first_sums[k], place_of_pair(layout, k)
    fan_in, (m, n), n_pairs = layout.widths[k], layout.blocks[k], 4 * layout.blocks_per_warp[k]
    start = sum(rows * columns for rows, columns in layout.model.network.shapes[:k])
    if layout.by_warpgroups(k):
        n_pairs = columns_of_warpgroup(layout, k) // 4
        m, n = n_warps, n_pairs  # of all of them

    @device
    def flush_pair(q, warp, lane, sums, gradients):  # sums 2 q and 2 q + 1 of all of the warp's
        if warp + n_warps * (q // 4) < m * n:
            row, column = place(q, warp, lane)
            i = start + row * fan_in + column
            put_pair(gradients, i, sums[first + 2 * q], sums[first + 2 * q + 1])

    @device
    def flush_gradients(warp, lane, sums, gradients):
        of_group = warp % n_warps
        unrolled(n_pairs, flush_pair, of_group, lane, sums, gradients)

    return flush_gradients


def place_of_pair(layout: FusedLayout, k: int):
    """Device function (q, warp, lane): row and column of matrix k of a thread's sum number 2 q."""
    (m, _), n_warps = layout.blocks[k], layout.n_warps
    n_columns = columns_of_warpgroup(layout, k)

    @device
    def of_blocks(q, warp, lane):
        here, part = warp + n_warps * (q // 4), q % 4
        row = here % m * 16 + (lane >> 2)
        row += 8 * (part % 2)
        column = here // m * 16
        column += 2 * (lane & 3)
        column += 8 * (part // 2)
        return row, column

    @device
    def of_warpgroups(q, warp, lane):
        row = warp % WARPGROUP * 16 + (lane >> 2)
        row += 8 * (q % 2)
        column = warp // WARPGROUP * n_columns + 8 * (q // 2)
        column += 2 * (lane & 3)
        return row, column

    return of_warpgroups if layout.by_warpgroups(k) else of_blocks
