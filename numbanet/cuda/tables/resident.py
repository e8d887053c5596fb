"""Gradients of tables that fit shared memory: a block adds up a level for a slice of the batch."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.cuda.launch.threads import (
    barrier,
    block_index,
    block_index_y,
    blocks_per_grid,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.tables.plan import NO_PARAMS, TablePlan
from numbanet.cuda.tables.units import bits_for, largest_exponent, note, scale_of, unit_of
from numbanet.device import ZERO, device, local_array, select, uint32_view, unrolled
from numbanet.encodings.grid.draws import draws
from numbanet.encodings.grid.edges import by_indexing, edge
from numbanet.storage.access import GOLDEN, rounded
from numbanet.storage.halves import TO_FLOATS
from numbanet.storage.memory_access import add_shared_int32
from numbanet.storage.views import float_vector, uint32_vector
from numbanet.tiles.instructions import load_word, shared_memory, store_word

N_THREADS, COLLECT_THREADS = 1024, 256
NOISE = 0x85EBCA6B  # odd, so that all samples differ
MOST_UNROLLED = 8  # edges


class Source(NamedTuple):
    """Device functions that read gradients of features and add them to a table."""

    n_words: int  # of a sample and job
    read: Callable  # (where, i, words): of sample i
    unpack: Callable  # (words, how, g): as floats
    salt: Callable  # (i, how) -> last argument of `add`
    add: Callable  # (table, left entry, right one, gradients of both, salt)


@cache
def add_slice(plan: TablePlan, n_columns: int, source: Source):
    """Device function (job, i, end, numbering, inputs, where, how, table): a thread's samples.

    Samples i, ... before `end` are added to a block's table of `job`; numbering = (number of sample
    0 in the batch, samples of that).

    Args:
        n_columns: of a row of inputs.
    """
    grid = plan.grid
    n_dims, n_edges, n_mine = grid.n_dims, grid.n_edges, plan.resident_features
    n_words, read_gradients, unpack, salt_of, add = source
    levels = tuple(np.uint32(job.level) for job in plan.residents)
    level_constants, locate_, n_factors = grid.level_constants, grid.locate, grid.n_factors
    begin, skip, draw = draws(grid.stochastic_interpolation, N_THREADS, 2)
    first_dim = np.uint32(plan.part.first_dim)

    @device
    def read(inputs, where, i, x, words):
        row = np.uint64(i) * np.uint64(n_columns) + np.uint64(first_dim)
        for d in range(n_dims):
            x[d] = inputs[row + np.uint64(d)]
        read_gradients(where, i, words)

    @device
    def share_out(f, share, t, g, left, right):
        whole = share * g[f]
        right[f] = t * whole
        left[f] = whole - right[f]

    def adder(entry):  # of the samples from i to `end`, for levels of one kind
        edge_ = edge(grid, entry)

        @device
        def add_edge(e, level, cell, factors, u, g, table, salt):
            low, high, share, t = edge_(level, cell, factors, e, u)
            left, right = local_array(n_mine), local_array(n_mine)
            unrolled(n_mine, share_out, share, t, g, left, right)
            add(table, low, high, left, right, salt)

        @device
        def add_samples(level, i, end, state, inputs, where, how, table):
            x, g = local_array(n_dims), local_array(n_mine)
            next_x, next_words = local_array(n_dims), uint32_view(local_array(n_words))
            last = max(end, np.uint32(1)) - 1
            read(inputs, where, min(i, last), next_x, next_words)
            while i < end:
                cell, factors = uint32_view(local_array(n_dims)), local_array(n_factors)
                unpack(next_words, how, g)
                for d in range(n_dims):
                    x[d] = next_x[d]
                salt, u = salt_of(i, how), draw(state)
                i += N_THREADS
                state = skip(state, 1)
                read(inputs, where, min(i, last), next_x, next_words)  # while the sums wait
                locate_(level, x, cell, factors)
                if n_edges <= MOST_UNROLLED:
                    unrolled(n_edges, add_edge, level, cell, factors, u, g, table, salt)
                else:
                    for e in range(n_edges):
                        add_edge(e, level, cell, factors, u, g, table, salt)

        return add_samples

    add_samples = by_indexing(grid, adder)

    @device
    def add_slice(job, i, end, numbering, inputs, where, how, table):
        before, n_all = numbering
        level, state = (
            level_constants(levels[job], NO_PARAMS),
            begin(levels[job], before + i, n_all),
        )
        add_samples(level, i, end, state, inputs, where, how, table)

    return add_slice


@device
def clear_table(table, size):
    k = thread_index()
    while k < size:
        store_word(table + k * 4, np.uint32(0))
        k += N_THREADS


@cache
def add_features(n: int, n_ends: int):
    """Device function (table, low, high, left, right, noise): n features of an edge's entries.

    In fractions of the unit, which are rounded at random.
    """
    width = n

    @device
    def add(f, low, high, left, right, noise):
        mixed = ((noise ^ f) * GOLDEN) >> 24
        place = np.uint32(4 * f)
        add_shared_int32(low + place, rounded(left[f], mixed))
        if n_ends == 2:
            add_shared_int32(high + place, rounded(right[f], mixed))

    @device
    def add_features(table, low, high, left, right, noise):
        noise ^= low << 3
        low = table + low * width * 4
        high = table + high * width * 4
        unrolled(n, add, low, high, left, right, noise)

    return add_features


@cache
def words_source(plan: TablePlan, precision: str):
    """Source of pairs of halves: where = (words, first row, pitch), how = (high, scale).

    `high` is whether a single feature is the second one of its pair.
    """
    n_mine, to_floats = plan.resident_features, TO_FLOATS[precision]
    n_words, takes_half = max(n_mine // 2, 1), n_mine == 1

    @device
    def read_word(k, words, q, pitch, i, out):
        out[k] = words[np.uint64(q + k) * np.uint64(pitch) + np.uint64(i)]

    @device
    def read(where, i, out):
        words, q, pitch = where
        unrolled(n_words, read_word, words, q, pitch, i, out)

    @device
    def unpack_word(k, words, is_high, scale, g):
        low, high = to_floats(words[k])
        if takes_half:
            g[0] = scale * select(is_high, high, low)
        else:
            g[2 * k], g[2 * k + 1] = scale * low, scale * high

    @device
    def unpack(words, how, g):
        is_high, scale = how
        unrolled(n_words, unpack_word, words, is_high, scale, g)

    @device
    def noise(i, how):
        return i * NOISE

    return Source(n_words, read, unpack, noise, add_features(n_mine, plan.grid.n_ends))


@device
def put(gradients, j, total, accumulates, noted):  # a gradient that is whole
    if accumulates != 0:
        total += gradients[j]
    gradients[j] = total
    note(total, noted)


@cache
def resident_kernel(plan: TablePlan, n_columns: int, first_word: int, precision: str):
    """(inputs, n, words, pitch, largest, partial sums, gradients, factor, 1 to add to what is
    there, where large gradients are noted).

    Adds up a slice of the batch (block x) for a job (block y). There are partial sums if there is
    more than one slice.

    Args:
        n_columns: of a row of inputs.
        first_word: pair of features that is the first one of `words`.
    """
    part, n_mine, n_features = plan.part, plan.resident_features, plan.n_features
    source = words_source(plan, precision)
    columns = tuple(
        np.uint32(part.first_column + job.level * n_features + job.first_feature - 2 * first_word)
        for job in plan.residents
    )
    sizes = tuple(np.uint32(job.size * n_mine) for job in plan.residents)
    places = tuple(np.uint32(job.first_sum + job.first_feature) for job in plan.residents)
    params = tuple(np.uint32(job.first_param + job.first_feature) for job in plan.residents)
    stride, add = np.uint64(plan.n_resident_sums), add_slice(plan, n_columns, source)
    exponent_of = largest_exponent(source.n_words)

    @device
    def place_of(k):  # among the features of the level's entries
        return k // n_mine * n_features + k % n_mine

    @device
    def sum_at(table, k, unit):
        return unit * np.float32(np.int32(load_word(table + k * 4)))

    def resident_sums(
        pinputs: Address, n: UInt, pwords: Address, pitch: UInt, plargest: Address,
        ppartial: Address, pgradients: Address, factor: Float, accumulates: UInt, noted: Address,
    ):  # fmt: skip
        job, slice_, n_slices = block_index_y(), block_index(), blocks_per_grid()
        table, size, column = shared_memory(), sizes[job], columns[job]
        clear_table(table, size)
        q, is_high = column >> 1, (column & 1) != 0
        n_slice = (n + n_slices - 1) // n_slices
        e, bits = exponent_of(plargest, q), bits_for(n_slice)
        i = slice_ * n_slice
        end = min(n, i + n_slice)
        i += thread_index()
        where = uint32_vector(pwords, n), q, pitch
        barrier()
        how = is_high, scale_of(e, bits)
        add(job, i, end, (np.uint32(0), n), float_vector(pinputs, n), where, how, table)
        barrier()
        unit, k = unit_of(e, bits), thread_index()
        first = np.uint64(slice_) * stride + np.uint64(places[job])
        partial = float_vector(np.uint64(ppartial + np.uint64(4) * first), size)
        if n_slices == 1:
            gradients, unit = float_vector(pgradients, size), unit * factor
            while k < size:
                j = np.uint64(params[job]) + np.uint64(place_of(k))
                put(gradients, j, sum_at(table, k, unit), accumulates, noted)
                k += N_THREADS
        else:
            while k < size:
                partial[place_of(k)] = sum_at(table, k, unit)
                k += N_THREADS

    resident_sums.__qualname__ = f"resident_sums_{precision}"
    return resident_sums


@cache
def collect_residents_kernel(plan: TablePlan):
    """(partial sums, slices, gradients, factor, 1 to add to what is there, where large ones are
    noted).

    Adds up the slices of all resident levels, of which block y has one.
    """
    jobs = {job.level: job for job in plan.residents}
    firsts = tuple(np.uint32(job.first_param) for job in jobs.values())
    places = tuple(np.uint32(job.first_sum) for job in jobs.values())
    counts = tuple(np.uint32(job.size * plan.n_features) for job in jobs.values())
    most, stride = plan.most_slices, np.uint64(plan.n_resident_sums)

    def collect_residents(
        ppartial: Address, n_slices: UInt, pgradients: Address, factor: Float, accumulates: UInt,
        noted: Address,
    ):  # fmt: skip
        level, k = block_index_y(), thread_number()
        count = counts[level]
        if k < count:
            j = np.uint64(firsts[level]) + np.uint64(k)
            of_slice = np.uint64(places[level]) + np.uint64(k)
            partial, gradients = float_vector(ppartial, count), float_vector(pgradients, count)
            total = np.float32(0)
            for s in range(most):  # whose number is known, so that all are loaded at once
                here = np.uint64(min(np.uint32(s), n_slices - 1)) * stride
                total += select(s < n_slices, partial[here + of_slice], ZERO)
            put(gradients, j, factor * total, accumulates, noted)

    return collect_residents
