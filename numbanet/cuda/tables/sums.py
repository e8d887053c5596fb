"""Gradients of tables that do not fit shared memory, second half: a block adds up one bin."""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import (
    barrier,
    block_index,
    block_index_y,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.tables.plan import BIN, TablePlan
from numbanet.cuda.tables.records import (
    FLIPS_SHIFT,
    HALF_BITS,
    NEXT,
    PLACE_SHIFT,
    PLACES,
)
from numbanet.cuda.tables.sorting import ROUND, offset_address
from numbanet.cuda.tables.units import (
    bits_for,
    count_up,
    largest_exponent,
    note,
    power,
    unit_of,
)
from numbanet.device import device, local_array, uint32_view, unrolled
from numbanet.storage.access import FRACTION_BITS, GOLDEN, rounded
from numbanet.storage.halves import float16_pair_to_floats
from numbanet.storage.memory_access import add_shared_int32, store_two_floats
from numbanet.storage.views import float_vector, uint32_vector
from numbanet.tiles.instructions import (
    load_two_words_from,
    load_word,
    load_word_from,
    shared_memory,
    store_word,
    store_words,
)

N_THREADS, COLLECT_THREADS = 512, 256
TABLE_BYTES = 8 * BIN
COUNT, SEGMENTS = TABLE_BYTES, TABLE_BYTES + 16  # in shared memory
LANES, AT_ONCE = 16, 5  # of a segment, and records that each loads before it adds them
MOST_AREAS = 512  # of a level: blocks that write records, of a pass over the batch
HALF_PLACE = np.float32(0.5 / PLACES)
ENTRY, FLIPS = BIN - 1, 31


def shared_bytes(n_areas: int) -> int:
    """Bytes of shared memory for the areas of a slice: two rounds each, with a start and an end."""
    return SEGMENTS + 16 * n_areas


@device
def add_record(low_word, high_word, table, factor):
    low, high = float16_pair_to_floats(high_word)
    low, high = factor * low, factor * high
    place = np.float32(low_word >> PLACE_SHIFT) * np.float32(1 / PLACES) + HALF_PLACE
    left = low_word & ENTRY
    flips = (low_word >> FLIPS_SHIFT) & FLIPS
    mask = (1 << flips) - 1
    right = left + 1 if flips == NEXT else left ^ mask
    low_right, high_right = place * low, place * high
    # One number serves all four, each of which is rounded without bias.
    noise = (low_word ^ (high_word * GOLDEN)) * GOLDEN
    noise >>= 24
    left = table + left * 4
    right = table + right * 4
    second = np.uint32(4 * BIN)
    add_shared_int32(left, rounded(low - low_right, noise))
    add_shared_int32(left + second, rounded(high - high_right, noise))
    add_shared_int32(right, rounded(low_right, noise))
    add_shared_int32(right + second, rounded(high_right, noise))


@device
def number_of(k, first, n):  # of a segment: the first rounds of n areas, then the second ones
    is_second = k >= n
    area = first + k - (n if is_second else np.uint32(0))
    return np.uint64(2) * np.uint64(area) + np.uint64(is_second)


@device
def clear(table, thread):  # the sums, and the number of records
    zeros, k = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0)), thread
    while k < COUNT // 16 + 1:
        store_words(table + k * 16, zeros)
        k += N_THREADS


@device
def sums_of_entry(table, k, unit):
    here = table + k * 4
    low, high = load_word(here), load_word(here + 4 * BIN)
    return unit * np.float32(np.int32(low)), unit * np.float32(np.int32(high))


@cache
def write_sums(plan: TablePlan):
    """Device function (address, k, first, second, adds, noted): two gradients from number k on."""
    has_pairs, is_aligned = plan.n_features > 1, plan.part.first_param % 2 == 0

    @device
    def write(address, k, first, second, adds, noted):
        numbers, after = float_vector(address, k), k + np.uint64(1)
        if adds:
            first += numbers[k]
            if has_pairs:
                second += numbers[after]
        note(first, noted)
        if has_pairs:
            note(second, noted)
        if has_pairs and is_aligned:
            store_two_floats(numbers, k, first, second)
        else:
            numbers[k] = first
            if has_pairs:
                numbers[after] = second

    return write


@cache
def sums_kernel(plan: TablePlan, first_word: int):
    """(records, offsets, areas of a level, levels with a second round, largest, gradients,
    partial sums, factor, 1 to add, address for large gradients).

    Adds up a bin's records of a slice of the batch (block x) for a level (block y).
    """
    n_features, column_0 = plan.n_features, plan.part.first_column - 2 * first_word
    jobs = plan.binned
    words = tuple(
        np.uint32((column_0 + job.level * n_features + job.first_feature) // 2) for job in jobs
    )
    all_bins = tuple(np.uint32(job.n_bins) for job in jobs)
    all_slices = tuple(np.uint32(job.n_slices) for job in jobs)
    sizes = tuple(np.uint32(job.size) for job in jobs)
    params = tuple(np.uint32(job.first_param + job.first_feature) for job in jobs)
    partials = tuple(np.uint32(k) for k in partial_places(plan)[:-1])
    exponent_of, offset_at = largest_exponent(1), offset_address(plan)
    write = write_sums(plan)
    n_words_of_record = 2 * AT_ONCE

    @device
    def load_record(j, records, r, end, words):
        place = min(r + LANES * j, end - 1)
        address = np.uint64(records + np.uint64(place) * np.uint64(8))
        words[2 * j], words[2 * j + 1] = load_two_words_from(address)

    @device
    def add_loaded(j, r, end, words, table, scale):
        if r + LANES * j < end:
            add_record(words[2 * j], words[2 * j + 1], table, scale)

    # Where each segment's records of the bin begin and end, and how many there are in all.
    @device
    def find_segments(table, thread, offsets, bin_, mine):
        count, segments = (
            table + COUNT,
            table + SEGMENTS,
        )
        first, n_mine, n_segments = mine
        k = thread
        while k < n_segments:
            place = offset_at(offsets, number_of(k, first, n_mine), bin_)
            start, end = load_word_from(place), load_word_from(np.uint64(place + np.uint64(4)))
            here = segments + 8 * k
            store_word(here, start)
            store_word(here + 4, end)
            count_up(count, end - start)
            k += N_THREADS

    @device
    def add_segments(table, thread, records, mine, scale):
        first, n_mine, n_segments = mine
        k, lane = thread // LANES, thread % LANES
        while k < n_segments:
            here = table + SEGMENTS + 8 * k
            r, end = load_word(here), load_word(here + 4)
            area = np.uint64(records + np.uint64(8 * ROUND) * number_of(k, first, n_mine))
            r += lane
            while r < end:
                loaded = uint32_view(local_array(n_words_of_record))
                unrolled(AT_ONCE, load_record, area, r, end, loaded)
                unrolled(AT_ONCE, add_loaded, r, end, loaded, table, scale)
                r += LANES * AT_ONCE
            k += N_THREADS // LANES

    def sum_records(
        precords: Address, poffsets: Address, n_areas: UInt, psecond: Address, plargest: Address,
        pgradients: Address, ppartial: Address, factor: Float, accumulates: UInt, noted: Address,
    ):  # fmt: skip
        job, thread, table = block_index_y(), thread_index(), shared_memory()
        n_bins, n_slices = all_bins[job], all_slices[job]
        bin_, slice_ = block_index() % n_bins, block_index() // n_bins
        if slice_ >= n_slices:
            return
        clear(table, thread)
        barrier()
        first = slice_ * n_areas // n_slices
        n_mine = (slice_ + 1) * n_areas // n_slices - first
        has_second = uint32_vector(psecond, n_bins)[job] != np.uint32(0)
        n_segments = n_mine + (n_mine if has_second else np.uint32(0))
        mine = first + job * n_areas, n_mine, n_segments
        find_segments(table, thread, poffsets, bin_, mine)
        barrier()
        count = load_word(table + COUNT)
        e, bits = exponent_of(plargest, words[job]), bits_for(count)
        scale = power(np.int32(bits - np.int32(HALF_BITS + 1) + np.int32(FRACTION_BITS)))
        add_segments(table, thread, precords, mine, scale)
        barrier()
        unit, k, size = unit_of(e, bits), thread, sizes[job]
        first_entry = bin_ * BIN
        n_entries = min(np.uint32(BIN), size - first_entry)
        while k < n_entries:
            low, high = sums_of_entry(table, k, unit)
            entry = np.uint64(first_entry + k)
            if n_slices == 1:
                to = np.uint64(params[job]) + entry * np.uint64(n_features)
                adds = accumulates != 0
                write(pgradients, to, factor * low, factor * high, adds, noted)
            else:
                row = np.uint64(slice_) * np.uint64(size) + entry
                sums = float_vector(ppartial, size)
                to = np.uint64(2) * (np.uint64(partials[job]) + row)
                sums[to], sums[to + np.uint64(1)] = low, high
            k += N_THREADS

    return sum_records


def partial_places(plan: TablePlan) -> list[int]:
    """Start of each level's partial sums, in pairs, and the end."""
    places = [0]
    for job in plan.binned:
        places.append(places[-1] + (job.n_slices * job.size if job.n_slices > 1 else 0))
    return places


@cache
def collect_bins_kernel(plan: TablePlan):
    """(partial sums, gradients, factor, 1 to add, address for large ones).

    Adds up the slices of the levels that have several, of which block y has one.
    """
    chosen = [k for k, job in enumerate(plan.binned) if job.n_slices > 1]
    jobs, n_features = [plan.binned[k] for k in chosen], plan.n_features
    places, write = partial_places(plan), write_sums(plan)
    all_slices = tuple(np.uint32(job.n_slices) for job in jobs)
    sizes = tuple(np.uint32(job.size) for job in jobs)
    params = tuple(np.uint32(job.first_param + job.first_feature) for job in jobs)
    partials = tuple(np.uint32(places[k]) for k in chosen)

    def collect_bins(
        ppartial: Address, pgradients: Address, factor: Float, accumulates: UInt, noted: Address
    ):
        job, k = block_index_y(), thread_number()
        size, n_slices = sizes[job], all_slices[job]
        if k < size:
            sums = float_vector(ppartial, size)
            low, high, s = np.float32(0), np.float32(0), np.uint32(0)
            while s < n_slices:
                row = np.uint64(partials[job]) + np.uint64(s) * np.uint64(size) + np.uint64(k)
                low += sums[np.uint64(2) * row]
                high += sums[np.uint64(2) * row + np.uint64(1)]
                s += 1
            to = np.uint64(params[job]) + np.uint64(k) * np.uint64(n_features)
            write(pgradients, to, factor * low, factor * high, accumulates != 0, noted)

    return collect_bins
