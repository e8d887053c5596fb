"""Largest gradient of each pair of features in a batch, found where gradients are computed."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba.types import uint32, void

from numbanet.cuda.tables.units import raise_word
from numbanet.device import device, float_bits, local_array, select, uint32_view, unrolled
from numbanet.storage.halves import TO_FLOATS
from numbanet.tiles.instructions import access, load_word, store_word, warp_max

LANES = 32
MAGNITUDES, LOW = 0x7FFF7FFF, 0xFFFF  # of two halves; of the first one

# (address, word): a word of shared memory becomes this one, if it is larger.
raise_shared_word = access("red.shared.max.u32 [$0], $1;", void, uint32, uint32)


@cache
def note_largest(first: int, stop: int, precision: str, raise_: Callable, address_type: type):
    """Device function (words, lane, address): maxima of words `first` to `stop` over a warp.

    Their sizes, as float32, are brought to that address by `raise_`. The bits of halves without
    sign are in the order of their sizes, those of infinities and NaN included.
    """
    n, to_floats = stop - first, TO_FLOATS[precision]
    n_mine = -(-n // LANES)

    @device
    def find(k, words, lane, mine):
        halves = words[first + k] & MAGNITUDES
        of_warp = warp_max(max(halves & LOW, halves >> 16))
        j = k // LANES
        # The first one in any lane: an undefined value would hold a register all the time.
        mine[j] = of_warp if k % LANES == 0 else select(lane == k % LANES, of_warp, mine[j])

    @device
    def bring(k, lane, mine, address):
        word = lane + LANES * k
        if word < n:
            size, _ = to_floats(mine[k])
            raise_(address + address_type(word * 4), float_bits(size))

    @device
    def note_largest(words, lane, address):
        mine = uint32_view(local_array(n_mine))
        unrolled(n, find, words, lane, mine)
        unrolled(n_mine, bring, lane, mine, address)

    return note_largest


def note_in_block(first: int, stop: int, precision: str):
    """note_largest in shared memory."""
    return note_largest(first, stop, precision, raise_shared_word, np.uint32)


def note_in_batch(first: int, stop: int, precision: str):
    """note_largest in global memory."""
    return note_largest(first, stop, precision, raise_word, np.uint64)


@cache
def largest_of_block(n: int):
    """Device functions (thread, shared) and (thread, shared, address).

    They clear n words of shared memory, and bring them to global memory.
    """

    @device
    def clear(thread, shared):
        if thread < n:
            store_word(shared + thread * 4, np.uint32(0))

    @device
    def bring(thread, shared, address):
        if thread < n:
            place = thread * 4
            raise_word(address + np.uint64(place), load_word(shared + place))

    return clear, bring
