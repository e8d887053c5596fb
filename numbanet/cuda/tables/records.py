"""Gradients of tables that do not fit shared memory, first half: records, sorted by bin.

A record is an edge of a sample's cell: the entry of its left end within a bin, how the right end
follows from it, the place along the edge, and what the edge gets of the gradients of two features,
as halves. Ends in two bins, or too far apart, are two records, of which the right ones are written
in a second round. A block sorts its records in shared memory, so that whole lines are written.
"""

from functools import cache

import numpy as np

from numbanet.architecture import HOPPER, compute_capability
from numbanet.cuda.launch.threads import (
    barrier,
    barrier_or,
    block_index,
    block_index_y,
    blocks_per_grid,
    thread_index,
)
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.tables.plan import BIN, LOG2_BIN, NO_PARAMS, TablePlan
from numbanet.cuda.tables.sorting import (
    N_THREADS,
    NO_PLACE,
    PER_THREAD,
    clear_counts,
    copy_out,
    count_record,
    sort_records,
)
from numbanet.cuda.tables.units import (
    EXPONENT_OF_NAN,
    bit_length,
    largest_exponent,
    power,
    raise_word,
)
from numbanet.device import ZERO, device, local_array, select, uint32_view, unrolled
from numbanet.encodings.grid.draws import draws
from numbanet.encodings.grid.edges import by_indexing, edge
from numbanet.storage.halves import TO_FLOATS, floats_to_float16_pair
from numbanet.storage.views import float_vector, uint32_vector
from numbanet.tiles.instructions import (
    shared_memory,
    warp_barrier,
)

MOST_REGISTERS = 64  # of a thread, so that a multiprocessor has two blocks
HALF_BITS = 14  # the largest gradient becomes a half of so many bits, less than 2^15
FLIPS_SHIFT, PLACE_SHIFT = 14, 19
PLACES = 1 << 13  # along an edge
NEXT = np.uint32(31)  # the right end follows the left one
MOST_MIXED = 2  # samples of a thread, whose instructions may be mixed
BIN_SHIFT, BIN_MASK = LOG2_BIN, BIN - 1


def shape(plan: TablePlan) -> tuple[int, int, int]:
    """Edges per thread and sample, samples per thread, and threads per sample."""
    n_edges = plan.grid.n_edges
    edges = min(n_edges, 4)
    return edges, PER_THREAD // edges, n_edges // edges


def block_samples(plan: TablePlan) -> int:
    """Samples per block."""
    _, samples, threads = shape(plan)
    return samples * N_THREADS // threads


@cache
def record_maker(plan: TablePlan, n_columns: int, precision: str):
    """Device function (level, inputs, n, words, values, to, draws): the records of a thread.

    values = (whether the higher halves of words are meant, scale); to = (round, shared memory,
    records, their places); draws = (level, number of the first sample, n_all).
    """
    grid, n_dims, n_factors = plan.grid, plan.grid.n_dims, plan.grid.n_factors
    n_edges, n_passes, n_groups = shape(plan)
    of_pass, of_block = np.uint32(N_THREADS // n_groups), block_samples(plan)
    first_dim, to_floats = np.uint32(plan.part.first_dim), TO_FLOATS[precision]
    locate_, is_single, n_coordinates = grid.locate, plan.n_features == 1, n_passes * n_dims
    begin, skip, draw = draws(grid.stochastic_interpolation, int(of_pass), n_passes)

    @device
    def reads_late():  # one sample before it is needed; of GPUs before Hopper registers suffice
        return n_passes > MOST_MIXED and compute_capability() >= HOPPER

    @device
    def read_sample(p, first, n, inputs, words, x, read):
        i = min(first + p * of_pass, n - 1)
        row = np.uint64(i) * np.uint64(n_columns) + np.uint64(first_dim)
        for d in range(n_dims):
            x[p * n_dims + d] = inputs[row + np.uint64(d)]
        read[p] = words[i]

    def maker(entry):  # of the records of a thread, for levels of one kind
        edge_ = edge(grid, entry)

        @device
        def make_record(k, p, group, place, values, known, to):
            (level, cell, factors, u), (low, high), (turn, shared, words, places) = (
                place,
                values,
                to,
            )
            left, right, share, t = edge_(level, cell, factors, group * n_edges + k, u)
            j = p * n_edges + k
            differs = left ^ right
            flips_low_bits = (differs & (differs + 1)) == 0
            by_flips = flips_low_bits & (differs < BIN)
            same_bin = (left >> BIN_SHIFT) == (right >> BIN_SHIFT)
            pair = by_flips | ((right == left + 1) & same_bin)
            is_first = turn == 0
            of_end = select(pair, np.float32(1), select(is_first, np.float32(1) - t, t))
            entry = select(is_first, left, right)
            flips = select(by_flips, bit_length(differs), NEXT)
            along = np.uint32(min(np.int32(t * np.float32(PLACES)), np.int32(PLACES - 1)))
            how = (flips << FLIPS_SHIFT) | (along << PLACE_SHIFT)
            words[2 * j] = (entry & BIN_MASK) | select(pair, how, np.uint32(0))
            share *= of_end
            words[2 * j + 1] = floats_to_float16_pair(share * low, share * high)
            places[j] = NO_PLACE
            if known & (is_first | (not pair)):
                owner = entry >> BIN_SHIFT
                places[j] = count_record(shared, owner)
                if not pair:
                    places[PER_THREAD] = np.uint32(1)

        @device
        def make_of_sample(p, level, place, n, source, values, to):
            (first, group), (inputs, all_words, x, read, state) = place, source
            is_high, scale = values
            if p + 1 < n_passes and reads_late():
                read_sample(p + 1, first, n, inputs, all_words, x, read)
            cell, factors = uint32_view(local_array(n_dims)), local_array(n_factors)
            low, high = to_floats(read[p])
            if is_single:
                low, high = select(is_high, high, low), ZERO
            locate_(level, x[p * n_dims : (p + 1) * n_dims], cell, factors)
            known, u = first + p * of_pass < n, draw(skip(state, p))
            unrolled(
                n_edges, make_record, p, group, (level, cell, factors, u),
                (scale * low, scale * high), known, to,
            )  # fmt: skip
            if reads_late():
                warp_barrier()  # lest the assembler mixes samples, whose numbers spill then

        @device
        def make_records(level, inputs, n, words, values, to, draws_of):
            thread = thread_index()
            group = np.int64(thread // of_pass)
            first = block_index() * of_block + thread % of_pass
            x, read = local_array(n_coordinates), uint32_view(local_array(n_passes))
            if reads_late():
                read_sample(0, first, n, inputs, words, x, read)
            else:
                unrolled(n_passes, read_sample, first, n, inputs, words, x, read)
            k, before, n_all = draws_of
            state = begin(k, before + first, n_all)
            place, source = (first, group), (inputs, words, x, read, state)
            unrolled(n_passes, make_of_sample, level, place, n, source, values, to)

        return make_records

    return by_indexing(grid, maker)


@cache
def records_kernel(plan: TablePlan, n_columns: int, first_word: int, precision: str):
    """(inputs, n, words, pitch, largest, records, offsets, levels with a second round, number of
    the first sample, n_all).

    Of n samples of n_all. Writes the records of a block's samples (block x) for a level (block y).
    """
    part, n_features = plan.part, plan.n_features
    levels = tuple(np.uint32(job.level) for job in plan.binned)
    columns = tuple(
        np.uint32(part.first_column + job.level * n_features + job.first_feature - 2 * first_word)
        for job in plan.binned
    )
    level_constants, exponent_of = plan.grid.level_constants, largest_exponent(1)
    n_storage, n_places = 2 * PER_THREAD, PER_THREAD + 1
    make_records = record_maker(plan, n_columns, precision)
    clear, sort, (copy, leave_out) = clear_counts(plan), sort_records(plan), copy_out(plan)

    def write_records(
        pinputs: Address, n: UInt, pwords: Address, pitch: UInt, plargest: Address,
        precords: Address, poffsets: Address, psecond: Address, before: UInt, n_all: UInt,
    ):  # fmt: skip
        thread, shared, job = thread_index(), shared_memory(), block_index_y()
        column, level = columns[job], level_constants(levels[job], NO_PARAMS)
        q, is_high = column >> 1, (column & 1) != 0
        e = exponent_of(plargest, q)
        scale = power(np.int32(HALF_BITS + 1) - e) if e < EXPONENT_OF_NAN else ZERO
        row = np.uint64(pwords + np.uint64(4) * np.uint64(q) * np.uint64(pitch))
        inputs, words = float_vector(pinputs, n), uint32_vector(row, n)
        area = np.uint64(job) * np.uint64(blocks_per_grid()) + np.uint64(block_index())
        turn = np.uint32(0)
        while turn < 2:
            clear(shared, thread)
            storage = uint32_view(local_array(n_storage))
            places = uint32_view(local_array(n_places))  # and whether there are single ends
            places[PER_THREAD] = np.uint32(0)
            to = turn, shared, storage, places
            draws_of = levels[job], before, n_all
            make_records(level, inputs, n, words, (is_high, scale), to, draws_of)
            barrier()
            sort(shared, thread, storage, places)
            number = np.uint64(np.uint64(2) * area + np.uint64(turn))
            copy(shared, thread, number, precords, poffsets)
            turn += 1
            splits = barrier_or(places[PER_THREAD] != 0)
            if turn == 1 and not splits:
                leave_out(thread, np.uint64(number + np.uint64(1)), poffsets)
                turn = np.uint32(2)
            elif turn == 1 and thread == 0:
                raise_word(np.uint64(psecond + np.uint64(4) * np.uint64(job)), np.uint32(1))

    write_records.__qualname__ = f"write_records_{precision}"
    return write_records
