"""Tiles of halves or float32 in shared memory: their layout, and copies to and from global memory.

The threads of a block copy 16 bytes of a row each, a chunk, in as many passes as it takes.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import thread_index
from numbanet.device import device, unrolled
from numbanet.storage.views import bfloat_vector, uint32_vector
from numbanet.tiles.instructions import copy_bytes, load_words, store_words, store_words_to

CHUNK_BYTES, LINE_BYTES, PAD_BYTES = 16, 128, 16
HALF, FLOAT = 2, 4  # bytes
NOTHING, ONE, TWO, FOUR = np.uint32(0), 1, np.uint32(2), np.uint32(4)
THREE, SIX, EIGHT, SIXTEEN = np.uint32(3), np.uint32(6), np.uint32(8), np.uint32(16)
HALF_BYTES, ALIGNMENT_MASK = np.uint64(HALF), np.uint64(15)


@dataclass(frozen=True)
class TileLayout:
    """Layout of numbers [n_outer, n_inner] in shared memory.

    A line is a row or, of short rows, 128 bytes of them; 16 bytes lie between lines, so that eight
    neighbours in either direction are in different banks, 16 bytes each.
    """

    n_outer: int
    n_inner: int
    item_bytes: int = HALF

    @property
    def chunk(self) -> int:
        """Numbers that a thread copies at once."""
        return CHUNK_BYTES // self.item_bytes

    @property
    def row_bytes(self) -> int:
        return self.item_bytes * self.n_inner

    @property
    def rows_per_line(self) -> int:
        return max(LINE_BYTES // self.row_bytes, 1)

    def offset(self, n_rows: int) -> int:
        """Distance in bytes of n_rows rows, a multiple of those of a line."""
        return n_rows // self.rows_per_line * (max(LINE_BYTES, self.row_bytes) + PAD_BYTES)

    @property
    def n_bytes(self) -> int:
        return self.offset(self.n_outer)


@cache
def place_in_tile(layout: TileLayout):
    """Device function (outer, inner): the bytes from the start of the tile to an element."""
    per_line = layout.rows_per_line
    line_bytes = layout.offset(layout.rows_per_line)
    row_bytes, item_bytes = layout.row_bytes, np.uint32(layout.item_bytes)

    @device
    def place_in_tile(outer, inner):
        line, row = outer // per_line, outer % per_line
        return line * line_bytes + row * row_bytes + item_bytes * inner

    return place_in_tile


@cache
def chunk_position(layout: TileLayout):
    """Device function (): the row and column of a thread's first chunk in a tile."""
    n_lanes, chunk = layout.n_inner // layout.chunk, np.uint32(layout.chunk)

    @device
    def chunk_position():
        t = thread_index()
        return t // n_lanes, chunk * (t % n_lanes)

    return chunk_position


def passes(layout: TileLayout, n_threads: int) -> tuple[int, int, int]:
    """Passes of a block's threads over a tile, the rows of one pass, and their bytes."""
    n_rows = n_threads * layout.chunk // layout.n_inner
    return layout.n_outer // n_rows, n_rows, layout.offset(n_rows)


@device
def load_half(source, i, is_there):  # 16 bits, in a word
    word = NOTHING
    if is_there:
        word = np.uint32(bfloat_vector(source, i + ONE)[i])
    return word


@device
def load_two_halves(source, i, n_left, k):
    low = load_half(source, i + k, n_left > k)
    high = load_half(source, i + k + ONE, n_left > k + ONE)
    return low | (high << SIXTEEN)


@device
def load_chunk_of_halves(source, i, n_left):
    return (
        load_two_halves(source, i, n_left, NOTHING),
        load_two_halves(source, i, n_left, TWO),
        load_two_halves(source, i, n_left, FOUR),
        load_two_halves(source, i, n_left, SIX),
    )


@device
def load_float(source, i, is_there):  # its bits
    word = NOTHING
    if is_there:
        word = uint32_vector(source, i + ONE)[i]
    return word


@device
def load_chunk_of_floats(source, i, n_left):
    return (
        load_float(source, i, n_left > NOTHING),
        load_float(source, i + np.uint32(ONE), n_left > ONE),
        load_float(source, i + TWO, n_left > TWO),
        load_float(source, i + THREE, n_left > THREE),
    )


@cache
def tile_loader(layout: TileLayout, n_threads: int, any_address: bool = False):
    """Device function (tile, source, pitch, outer, inner): start the copy of a tile.

    outer and inner are tuples of the first row or column of the source and the end, from which on
    there are zeros. Addresses of rows are multiples of 16, or else any_address is to be said; then
    a source for which they are not is loaded one by one.
    """
    position, address = chunk_position(layout), place_in_tile(layout)
    n_passes, n_rows, offset = passes(layout, n_threads)
    chunk, item_bytes = np.uint32(layout.chunk), np.uint32(layout.item_bytes)
    wide_item_bytes = np.uint64(item_bytes)
    load_words_of = load_chunk_of_halves if layout.item_bytes == HALF else load_chunk_of_floats

    @device
    def load_chunk(j, source, places, row, end, n_left, is_aligned):
        target, first, row_numbers = places
        n_here = n_left if row + j * n_rows < end else NOTHING
        there = target + j * offset
        i = first + j * row_numbers
        if is_aligned:
            copy_bytes(there, source + wide_item_bytes * np.uint64(i), item_bytes * n_here)
        else:
            words = load_words_of(source, i, n_here)
            store_words(there, words)

    @device
    def tile_loader(tile, source, pitch, outer_range, inner_range):
        first_outer, outer_end = outer_range
        first_inner, inner_end = inner_range
        outer, inner = position()
        target = tile + address(outer, inner)
        outer, inner = outer + first_outer, inner + first_inner
        n_left = min(inner_end - inner, chunk) if inner < inner_end else NOTHING
        first, row_numbers = outer * pitch + inner, n_rows * pitch
        is_aligned = True
        if any_address:
            is_aligned = (pitch % chunk == NOTHING) & (
                np.uint64(source & ALIGNMENT_MASK) == np.uint64(0)
            )
        places = target, first, row_numbers
        unrolled(n_passes, load_chunk, source, places, outer, outer_end, n_left, is_aligned)

    return tile_loader


@device
def half_of(words, j):  # the j-th of eight, as 16 bits
    return np.uint16(words[j // 2] >> (SIXTEEN * (j % 2)))


@cache
def tile_storer(layout: TileLayout, n_threads: int):
    """Device function (tile, target, pitch, rows, columns): write halves to global memory.

    rows and columns are tuples of the first one there and the end.
    """
    position, address = chunk_position(layout), place_in_tile(layout)
    n_passes, n_rows, offset = passes(layout, n_threads)

    @device
    def store_half(j, target, i, words, n_left):
        if np.uint32(j) < n_left:
            bfloat_vector(target, i + EIGHT)[i + j] = half_of(words, j)

    @device
    def tile_storer(tile, target, pitch, rows, columns):
        first_row, row_end = rows
        first_column, column_end = columns
        row, column = position()
        source = tile + address(row, column)
        row, column = row + first_row, column + first_column
        first, row_numbers = row * pitch + column, n_rows * pitch
        if column < column_end:
            n_left = column_end - column
            for j in range(n_passes):
                if row + j * n_rows < row_end:
                    words = load_words(source + j * offset)
                    i = first + j * row_numbers
                    if n_left >= EIGHT:
                        store_words_to(target + HALF_BYTES * np.uint64(i), words)
                    else:
                        unrolled(8, store_half, target, i, words, n_left)

    return tile_storer
