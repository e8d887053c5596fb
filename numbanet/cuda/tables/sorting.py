"""Records sorted by bin in a block's shared memory, so that whole lines are written.

The threads of a block count their records by bin, place them in order, and copy them to an area of
the block's own.
"""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import barrier
from numbanet.cuda.tables.plan import MOST_BINS, TablePlan
from numbanet.cuda.tables.units import count_up
from numbanet.device import device, unrolled
from numbanet.tiles.instructions import (
    load_word,
    load_words,
    store_word,
    store_word_to,
    store_words_to,
)

N_THREADS = 512
PER_THREAD = 8  # records of a round
ROUND = N_THREADS * PER_THREAD  # records of a block
COUNTS, STARTS = 0, 4 * MOST_BINS  # in shared memory
STAGE = -(-(STARTS + 4 * (MOST_BINS + 1)) // 16) * 16
SHARED_BYTES = STAGE + 8 * ROUND
NO_PLACE = np.uint32(0xFFFFFFFF)


@device
def n_records_of(shared, most_bins):
    return load_word(shared + STARTS + most_bins * 4)


@device
def count_record(shared, owner):
    """Count a record; returns its place: its bin, and its rank within the bin."""
    rank = count_up(shared + COUNTS + owner * 4, np.uint32(1))
    return (owner << 16) | rank


@device
def stage_record(j, shared, words, places):
    place = places[j]
    if place != NO_PLACE:
        start = load_word(shared + STARTS + (place >> 16) * 4)
        at = start + (place & 0xFFFF)
        to = shared + STAGE + at * 8
        store_word(to, words[2 * j])
        store_word(to + 4, words[2 * j + 1])


@cache
def offset_address(plan: TablePlan):
    """Device function (address, number, k): address of bin k's offset in a round of a block."""
    row = np.uint64(4 * plan.n_offsets)

    @device
    def offset_address(address, number, k):
        return np.uint64(address + row * number + np.uint64(4) * np.uint64(k))

    return offset_address


@cache
def sort_records(plan: TablePlan):
    """Device function (shared, thread, words, places): the block's records, sorted in STAGE."""
    most_bins = np.uint32(max(plan.n_offsets - 1, 1))

    @device
    def find_starts(shared, thread):  # of each bin, and the end; by the first MOST_BINS threads
        counts, starts = shared, shared + STARTS
        mine = np.uint32(0)
        if thread < most_bins:
            mine = load_word(counts + thread * 4)
            store_word(starts + (thread + 1) * 4, mine)
        if thread == 0:
            store_word(starts, np.uint32(0))
        distance = np.uint32(1)
        while distance < most_bins:
            barrier()
            other, here = np.uint32(0), starts + (thread + 1) * 4
            takes = (thread < most_bins) & (thread >= distance)
            if takes:
                other = load_word(here - distance * 4)
            barrier()
            if takes:
                mine += other
                store_word(here, mine)
            distance *= 2
        barrier()

    @device
    def fill_pair(shared, thread):  # two records are copied at a time
        n_records = n_records_of(shared, most_bins)
        if thread == 0 and (n_records & 1) != 0:
            last = shared + STAGE + n_records * 8
            store_word(last, np.uint32(0))
            store_word(last + 4, np.uint32(0))

    @device
    def sort_records(shared, thread, words, places):
        find_starts(shared, thread)
        unrolled(PER_THREAD, stage_record, shared, words, places)
        fill_pair(shared, thread)
        barrier()

    return sort_records


@cache
def clear_counts(plan: TablePlan):
    """Device function (shared, thread): zero the numbers of records."""
    most_bins = np.uint32(max(plan.n_offsets - 1, 1))

    @device
    def clear_counts(shared, thread):
        if thread < most_bins:
            store_word(shared + COUNTS + thread * 4, np.uint32(0))
        barrier()

    return clear_counts


@cache
def copy_out(plan: TablePlan):
    """Device functions (shared, thread, number, records, offsets): the sorted records of a round.

    And (thread, number, offsets): there are none in that round.
    """
    n_offsets, most_bins = plan.n_offsets, np.uint32(max(plan.n_offsets - 1, 1))
    offset_at = offset_address(plan)

    @device
    def copy_out(shared, thread, number, records, offsets):
        if thread < n_offsets:
            start = load_word(shared + STARTS + thread * 4)
            store_word_to(offset_at(offsets, number, thread), start)
        n_records = n_records_of(shared, most_bins)
        to, k = np.uint64(records + np.uint64(8 * ROUND) * number), 2 * thread
        while k < n_records:
            piece = load_words(shared + STAGE + k * 8)
            store_words_to(np.uint64(to + np.uint64(k) * np.uint64(8)), piece)
            k += 2 * N_THREADS

    @device
    def leave_out(thread, number, offsets):
        if thread < n_offsets:
            store_word_to(offset_at(offsets, number, thread), np.uint32(0))

    return copy_out, leave_out
