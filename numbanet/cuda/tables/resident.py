"""Gradients of tables that fit shared memory: a block adds up a level for a slice of the batch."""

from functools import cache

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
from numbanet.encodings.grid.edges import by_indexing, edge
from numbanet.storage.access import GOLDEN, rounded
from numbanet.storage.halves import TO_FLOATS
from numbanet.storage.memory_access import add_shared_int32
from numbanet.storage.views import float_vector, uint32_vector
from numbanet.tiles.instructions import load_word, shared_memory, store_word

N_THREADS, COLLECT_THREADS = 1024, 256
NOISE = 0x85EBCA6B  # odd, so that all samples differ
MOST_UNROLLED = 8  # edges


@cache
def add_features(n: int):
    """Device function (table, low, high, left, right, noise): n features of two entries.

    In fractions of the unit, which are rounded at random.
    """
    width = n

    @device
    def add(f, low, high, left, right, noise):
        mixed = ((noise ^ f) * GOLDEN) >> 24
        place = np.uint32(4 * f)
        add_shared_int32(low + place, rounded(left[f], mixed))
        add_shared_int32(high + place, rounded(right[f], mixed))

    @device
    def add_features(table, low, high, left, right, noise):
        noise ^= low << 3
        low = table + low * width * 4
        high = table + high * width * 4
        unrolled(n, add, low, high, left, right, noise)

    return add_features


@cache
def resident_kernel(plan: TablePlan, n_columns: int, first_word: int, precision: str):
    """(inputs, n, number of the first sample, words, pitch, largest, partial sums).

    Adds up a slice of the batch (block x) for a job (block y).

    Args:
        n_columns: of a row of inputs.
        first_word: pair of features that is the first one of `words`.
    """
    grid, part = plan.grid, plan.part
    n_dims, n_edges, n_features = grid.n_dims, plan.n_edges, plan.n_features
    n_mine = plan.resident_features
    n_words, takes_half = max(n_mine // 2, 1), n_mine == 1
    levels = tuple(np.uint32(job.level) for job in plan.residents)
    columns = tuple(
        np.uint32(part.first_column + job.level * n_features + job.first_feature - 2 * first_word)
        for job in plan.residents
    )
    sizes = tuple(np.uint32(job.size * n_mine) for job in plan.residents)
    places = tuple(np.uint32(job.first_sum + job.first_feature) for job in plan.residents)
    stride, first_dim = np.uint64(plan.n_resident_sums), np.uint32(part.first_dim)
    level_constants, locate_ = grid.level_constants, grid.locate
    n_factors, to_floats = grid.n_factors, TO_FLOATS[precision]
    add, exponent_of = add_features(n_mine), largest_exponent(n_words)

    @device
    def read_word(k, words, q, pitch, i, out):
        out[k] = words[np.uint64(q + k) * np.uint64(pitch) + np.uint64(i)]

    @device
    def read(inputs, words, q, pitch, i, x, out):
        row = np.uint64(i) * np.uint64(n_columns) + np.uint64(first_dim)
        for d in range(n_dims):
            x[d] = inputs[row + np.uint64(d)]
        unrolled(n_words, read_word, words, q, pitch, i, out)

    @device
    def unpack(k, words, is_high, scale, g):
        low, high = to_floats(words[k])
        if takes_half:
            g[0] = scale * select(is_high, high, low)
        else:
            g[2 * k], g[2 * k + 1] = scale * low, scale * high

    @device
    def share_out(f, share, t, g, left, right):
        whole = share * g[f]
        right[f] = t * whole
        left[f] = whole - right[f]

    def adder(entry):  # of the samples from i to `end`, for levels of one kind
        edge_ = edge(n_dims, entry)

        @device
        def add_edge(e, level, cell, factors, g, table, noise):
            low, high, share = edge_(level, cell, factors, e)
            left, right = local_array(n_mine), local_array(n_mine)
            unrolled(n_mine, share_out, share, factors[1], g, left, right)
            add(table, low, high, left, right, noise)

        @device
        def add_samples(level, i, end, first, source, is_high, scale, table):
            inputs, words, q, pitch = source
            x, g = local_array(n_dims), local_array(n_mine)
            next_x, next_words = local_array(n_dims), uint32_view(local_array(n_words))
            last = max(end, np.uint32(1)) - 1
            read(inputs, words, q, pitch, min(i, last), next_x, next_words)
            while i < end:
                cell, factors = uint32_view(local_array(n_dims)), local_array(n_factors)
                unrolled(n_words, unpack, next_words, is_high, scale, g)
                for d in range(n_dims):
                    x[d] = next_x[d]
                noise = (first + i) * NOISE
                i += N_THREADS
                after = min(i, last)
                read(inputs, words, q, pitch, after, next_x, next_words)  # while the sums wait
                locate_(level, x, cell, factors)
                if n_edges <= MOST_UNROLLED:
                    unrolled(n_edges, add_edge, level, cell, factors, g, table, noise)
                else:
                    for edge_number in range(n_edges):
                        add_edge(edge_number, level, cell, factors, g, table, noise)

        return add_samples

    add_samples = by_indexing(grid, adder)

    def resident_sums(
        pinputs: Address, n: UInt, first: UInt, pwords: Address, pitch: UInt, plargest: Address,
        ppartial: Address,
    ):  # fmt: skip
        job, slice_, table = block_index_y(), block_index(), shared_memory()
        size, k = sizes[job], thread_index()
        while k < size:
            store_word(table + k * 4, np.uint32(0))
            k += N_THREADS
        column = columns[job]
        q, is_high = column >> 1, (column & 1) != 0
        n_slice = (n + blocks_per_grid() - 1) // blocks_per_grid()
        e, bits = exponent_of(plargest, q), bits_for(n_slice)
        scale, level = scale_of(e, bits), level_constants(levels[job], NO_PARAMS)
        i = slice_ * n_slice
        end = min(n, i + n_slice)
        i += thread_index()
        source = float_vector(pinputs, n), uint32_vector(pwords, n), q, pitch
        barrier()
        add_samples(level, i, end, first, source, is_high, scale, table)
        barrier()
        unit, k = unit_of(e, bits), thread_index()
        partial = float_vector(
            np.uint64(
                ppartial + np.uint64(4) * (np.uint64(slice_) * stride + np.uint64(places[job]))
            ),
            size,
        )
        while k < size:
            value = np.float32(np.int32(load_word(table + k * 4)))
            entry, f = k // n_mine, k % n_mine
            partial[entry * n_features + f] = unit * value
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
            total *= factor
            if accumulates != 0:
                total += gradients[j]
            gradients[j] = total
            note(total, noted)

    return collect_residents
