"""Features of levels whose tables fit shared memory: a block per level and slice of the batch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from numbanet.cuda.launch.rows import read_row
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    block_index,
    block_index_y,
    blocks_per_grid,
    thread_index,
)
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.tables.plan import JOBS, NO_PARAMS
from numbanet.device import device, local_array, uint32_view, unrolled
from numbanet.encodings.grid.edges import by_indexing
from numbanet.encodings.grid.pairs import MOST_WORDS, forward_pairs
from numbanet.encodings.parts import Part
from numbanet.tiles.copies import PIECE
from numbanet.tiles.instructions import (
    copy_words,
    load_two_words,
    load_word,
    load_words,
    shared_memory,
    store_word_to,
    wait_for_copies,
)

N_THREADS = 1024
HALF_BYTES = 2


@dataclass(frozen=True)
class FeaturePlan:
    """Levels of `part`, a grid of a model's encoding, whose tables fit shared memory."""

    part: Part
    max_shared_bytes: int
    precision: str

    @property
    def grid(self):
        return self.part.encoding

    def table_bytes(self, level: int) -> int:
        width = HALF_BYTES * self.grid.n_features_per_level
        return int(self.grid.levels[level].size) * width

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels that fit, if their tables can be copied in whole pieces."""
        grid, part = self.grid, self.part
        in_pairs = grid.partition_forward_pairs(self.precision, part.first_param) is not None
        if not in_pairs or part.first_column % 2 or HALF_BYTES * part.first_param % PIECE:
            return ()
        return tuple(
            k for k in range(grid.n_levels) if self.table_bytes(k) <= self.max_shared_bytes
        )

    @property
    def words(self) -> tuple[int, ...]:
        """Range of the pairs of features of these levels, among the model's."""
        n, first = self.grid.n_pairs, self.part.first_column // 2
        return tuple(first + k * n + pair for k in self.levels for pair in range(n))

    @property
    def n_slices(self) -> int:
        """Slices of the batch, each of which has a block for every level."""
        return max(1, JOBS // max(len(self.levels), 1))

    @property
    def shared_bytes(self) -> int:
        return max(map(self.table_bytes, self.levels), default=0)


@device
def load_one_word(address):
    return (load_word(address),)


@cache
def load_shared_words(n_pairs: int, entry: Callable):
    """Device function (level, cell, corner, table, words): as load_words, from shared memory."""

    n_words = min(n_pairs, MOST_WORDS)
    load = {1: load_one_word, 2: load_two_words, 4: load_words}[n_words]

    @device
    def load_shared_words(level, cell, corner, table, words):
        here = table + entry(level, cell, corner) * (4 * n_pairs)
        for k in range(0, n_pairs, n_words):
            loaded = load(here + 4 * k)
            for q in range(n_words):
                words[k + q] = loaded[q]

    return load_shared_words


@cache
def features_kernel(plan: FeaturePlan, n_columns: int, first_word: int):
    """(inputs, n, encoding's parameters, words, pitch): write words of features of a level.

    Of that of block y, for a slice of the batch (block x).

    Args:
        n_columns: of a row of inputs.
        first_word: pair of features that is the first one of `words`.
    """
    grid, part = plan.grid, plan.part
    n_dims, n_pairs, first_dim = grid.n_dims, grid.n_pairs, part.first_dim
    n_pieces = tuple(np.uint32(plan.table_bytes(k) // PIECE) for k in plan.levels)
    width = HALF_BYTES * grid.n_features_per_level
    places = tuple(
        np.uint64(HALF_BYTES * part.first_param + int(grid.levels[k].offset) * width)
        for k in plan.levels
    )
    levels = tuple(np.uint32(k) for k in plan.levels)
    first = part.first_column // 2 - first_word
    columns = tuple(np.uint32(first + k * n_pairs) for k in plan.levels)
    read_, level_constants = read_row(n_columns), grid.level_constants

    @device
    def copy_table(job, thread, source, table):
        k = thread
        while k < n_pieces[job]:
            place = k * PIECE
            copy_words(table + place, source + np.uint64(place))
            k += N_THREADS
        wait_for_copies()
        barrier()

    @device
    def read(inputs, i, x):
        read_(inputs + np.uint64(i) * (4 * n_columns), np.uint32(0), x)

    @device
    def write_word(k, words, column, pitch, i, address):
        place = np.uint64(column + k) * np.uint64(pitch) + np.uint64(i)
        store_word_to(address + place * 4, words[k])

    def writer(entry):  # of the samples from `first` to `end`, for levels of one kind
        interpolate = forward_pairs(grid, plan.precision, load_shared_words(n_pairs, entry))

        @device
        def write_samples(level, first, end, lane, inputs, table, to):
            column, pitch, address = to
            x, next_x = local_array(n_columns), local_array(n_columns)
            last = max(end, np.uint32(1)) - 1
            read(inputs, min(first + lane, last), next_x)
            while first < end:  # for all lanes of a warp alike
                i = first + lane
                for d in range(n_columns):
                    x[d] = next_x[d]
                first += N_THREADS
                read(inputs, min(first + lane, last), next_x)
                words = uint32_view(local_array(n_pairs))
                interpolate(level, x[first_dim : first_dim + n_dims], table, words)
                if i < end:
                    unrolled(n_pairs, write_word, words, column, pitch, i, address)

        return write_samples

    write_samples = by_indexing(grid, writer)

    def resident_features(
        pinputs: Address, n: UInt, pparams: Address, pwords: Address, pitch: UInt,
    ):  # fmt: skip
        job, thread, table = block_index_y(), thread_index(), shared_memory()
        copy_table(job, thread, pparams + places[job], table)
        level = level_constants(levels[job], NO_PARAMS)
        n_slice = (n + blocks_per_grid() - 1) // blocks_per_grid()
        first = block_index() * n_slice
        end, lane = min(n, first + n_slice), thread % WARP
        first += thread - lane
        to = columns[job], pitch, pwords
        write_samples(level, first, end, lane, pinputs, table, to)

    resident_features.__qualname__ = f"resident_features_{plan.precision}"
    return resident_features
