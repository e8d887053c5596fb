"""Warp collectives: barriers within a warp, shuffles, votes, matches and reductions."""

import numpy as np

from emulator.ptx.dtypes import DTYPES, PREDICATE, S64, U32
from emulator.ptx.errors import DivergentCollective, UnsupportedInstruction
from emulator.ptx.operation import Operation, decodes
from emulator.ptx.syntax import Pair

ALL = 0xFFFFFFFF
LANES = np.arange(32)
REDUCTIONS = {  # function and neutral element
    "add": (np.add, lambda limits: 0),
    "min": (np.minimum, lambda limits: limits.max),
    "max": (np.maximum, lambda limits: limits.min),
    "and": (np.bitwise_and, lambda limits: -1 if limits.min else limits.max),
    "or": (np.bitwise_or, lambda limits: 0),
    "xor": (np.bitwise_xor, lambda limits: 0),
}


def pack_bits(flags):
    """(warps, 32) flags as (warps,) masks."""
    return np.packbits(flags, axis=1, bitorder="little").view(U32).reshape(-1)


def unpack_bits(masks):
    """(...) masks as (..., 32) flags."""
    return (masks[..., None] >> LANES.astype(U32) & U32.type(1)) != 0


class ActiveWarps:
    """Warps of the active lanes, and the mapping of lanes to rows of 32."""

    def __init__(self, selection, n_lanes):
        self.is_full = True
        if selection is None:
            self.numbers = np.arange(n_lanes // 32)
        else:
            warps = selection >> 5
            starts = np.append(True, warps[1:] != warps[:-1])
            self.numbers = warps[starts]
            self.is_full = self.numbers.shape[0] * 32 == selection.shape[0]
        self.n = self.numbers.shape[0]
        if self.is_full:
            self.masks = np.full(self.n, ALL, U32)
            return
        self.row = np.cumsum(starts) - 1
        self.place = self.row * 32 + (selection & 31)
        active = np.zeros(self.n * 32, bool)
        active[self.place] = True
        self.active = active.reshape(-1, 32)
        self.masks = pack_bits(self.active)

    def rows(self, values):
        """Arrange one value per active lane as (warps, 32)."""
        if values.shape[0] == 1:
            return np.broadcast_to(values, (self.n, 32))
        if self.is_full:
            return values.reshape(-1, 32)
        rows = np.zeros(self.n * 32, values.dtype)
        rows[self.place] = values
        return rows.reshape(-1, 32)

    def lanes(self, rows):
        """(warps, 32) as one value per active lane."""
        flat = np.ascontiguousarray(rows).reshape(-1)
        return flat if self.is_full else flat[self.place]

    def spread(self, values):
        """Repeat one value per warp for each active lane."""
        return np.repeat(values, 32) if self.is_full else values[self.row]


def check_mask(machine, mask, opcode):
    """Check that all lanes that a mask names are active, with the same mask."""
    warps = machine.warps()
    if warps.is_full and mask.shape[0] == 1 and int(mask[0]) == ALL:
        return warps
    masks, here = warps.rows(mask), warps.masks[:, None]
    active = unpack_bits(warps.masks)
    missing = active & (masks & machine.existing_masks[warps.numbers][:, None] & ~here != 0)
    if missing.any():
        row, lane = np.argwhere(missing)[0].tolist()
        raise DivergentCollective(
            f"{opcode}: lanes that the mask names are missing in {machine.warp_name(warps, row)}:"
            f" mask {int(masks[row, lane]):#010x}, lanes here {int(warps.masks[row]):#010x}"
        )
    outside = active & (masks >> LANES.astype(U32) & U32.type(1) == 0)
    if outside.any():
        row, lane = np.argwhere(outside)[0].tolist()
        raise DivergentCollective(
            f"{opcode}: lane {lane} of {machine.warp_name(warps, row)} is not in its own mask"
            f" {int(masks[row, lane]):#010x}"
        )
    if mask.shape[0] > 1:
        named = unpack_bits(masks) & active[:, :, None] & active[:, None, :]
        unequal = named & (masks[:, :, None] != masks[:, None, :])
        if unequal.any():
            row, lane, other = np.argwhere(unequal)[0].tolist()
            raise DivergentCollective(
                f"{opcode}: lanes {lane} and {other} of {machine.warp_name(warps, row)} give"
                f" different masks {int(masks[row, lane]):#010x}, {int(masks[row, other]):#010x}"
            )
    return warps


def need_whole_warps(machine, opcode):
    warps = machine.warps()
    if not warps.is_full:
        row = int(np.flatnonzero(warps.masks != ALL)[0])
        raise DivergentCollective(
            f"{opcode}: all 32 lanes must execute it together: {machine.warp_name(warps, row)}"
            f" has lanes {int(warps.masks[row]):#010x} here"
        )
    return warps


class Collective:
    """Calls a function with the machine and the opcode."""

    def __init__(self, function, *static):
        self.function, self.static = function, static

    def prepare(self, unit, instruction):
        self.opcode = instruction.opcode

    def __call__(self, machine, *values):
        return self.function(machine, self.opcode, *self.static, *values)


def collective(function, *static, results=(), sources=(), **options):
    function = Collective(function, *static)
    return Operation(function, list(results), list(sources), on_machine=True, **options)


# shuffles


def source_lanes(mode, lane, b, c):
    """Lane that each lane reads and whether it lies in its segment, as the ISA defines it."""
    b, clamp, segment = b & 31, c & 31, c >> 8 & 31
    last = lane & segment | clamp & ~segment
    if mode == "up":
        source = lane - b
        inside = source >= last
    else:
        down, swap = lane + b, lane ^ b
        source = {"down": down, "bfly": swap, "idx": lane & segment | b & ~segment}[mode]
        inside = source <= last
    return np.where(inside, source, lane), inside


def shuffle(machine, opcode, mode, values, b, c, mask):
    warps = check_mask(machine, mask, opcode)
    source, inside = source_lanes(mode, LANES, warps.rows(b).astype(S64), warps.rows(c).astype(S64))
    source, inside = (np.broadcast_to(x, (warps.n, 32)) for x in (source, inside))
    named = warps.rows(mask) & warps.masks[:, None]
    wrong = unpack_bits(warps.masks) & (named >> source.astype(U32) & U32.type(1) == 0)
    if wrong.any():
        row, lane = np.argwhere(wrong)[0].tolist()
        raise DivergentCollective(
            f"{opcode}: lane {lane} of {machine.warp_name(warps, row)} reads lane"
            f" {int(source[row, lane])}, which does not take part"
        )
    result = np.take_along_axis(warps.rows(values), source, axis=1)
    return warps.lanes(result), warps.lanes(inside)


def first_of(function):
    return lambda *arguments: function(*arguments)[0]


@decodes("shfl")
def decode_shuffle(i):
    mode = i.modifiers[i.modifiers.index("sync") + 1]
    d, *sources = i.operands
    sources = [(source, U32) for source in sources]
    if isinstance(d, Pair):
        results = [(d.first, U32), (d.second, PREDICATE)]
        return collective(shuffle, mode, results=results, sources=sources)
    return collective(first_of(shuffle), mode, results=[(d, U32)], sources=sources)


# votes and the rest


def synchronise(machine, opcode, mask):
    warps = check_mask(machine, mask, opcode)
    machine.warp_epochs[warps.numbers] += 1


def vote(machine, opcode, mode, predicate, mask):
    warps = check_mask(machine, mask, opcode)
    named = warps.spread(warps.masks) & mask
    ballot = warps.spread(pack_bits(warps.rows(predicate))) & named
    if mode == "ballot":
        return ballot
    return {"any": ballot != 0, "all": ballot == named}.get(mode, (ballot == 0) | (ballot == named))


def match(machine, opcode, all_equal, values, mask):
    warps = check_mask(machine, mask, opcode)
    rows = warps.rows(values)
    named = unpack_bits(warps.rows(mask) & warps.masks[:, None])
    equal = named & (rows[:, :, None] == rows[:, None, :])
    masks = np.packbits(equal, axis=2, bitorder="little").view(U32)[:, :, 0]
    everyone = (equal == named).all(axis=2)
    if all_equal:
        masks = np.where(everyone, masks, U32.type(0))
    return warps.lanes(masks), warps.lanes(everyone)


def reduce(machine, opcode, operation, values, mask):
    warps = check_mask(machine, mask, opcode)
    function, neutral = REDUCTIONS[operation]
    named = unpack_bits(warps.rows(mask) & warps.masks[:, None])
    neutral = values.dtype.type(neutral(np.iinfo(values.dtype)))
    rows = np.where(named, warps.rows(values)[:, None, :], neutral)
    return warps.lanes(function.reduce(rows, axis=2, dtype=values.dtype))


def active_mask(machine, opcode):
    warps = machine.warps()
    return warps.spread(warps.masks)


@decodes("bar", "barrier")
def warp_barrier(i):
    return collective(synchronise, sources=[(i.operands[0], U32)])


@decodes("vote")
def decode_vote(i):
    mode = i.modifiers[i.modifiers.index("sync") + 1]
    d, a, mask = i.operands
    result = U32 if mode == "ballot" else PREDICATE
    return collective(vote, mode, results=[(d, result)], sources=[(a, PREDICATE), (mask, U32)])


@decodes("match")
def decode_match(i):
    d, a, mask = i.operands
    sources = [(a, DTYPES[i.type]), (mask, U32)]
    if isinstance(d, Pair):
        results = [(d.first, U32), (d.second, PREDICATE)]
        return collective(match, i.has("all"), results=results, sources=sources)
    return collective(first_of(match), i.has("all"), results=[(d, U32)], sources=sources)


@decodes("redux")
def decode_reduce(i):
    operation = i.modifiers[i.modifiers.index("sync") + 1]
    dtype = DTYPES[i.type]
    if dtype.kind == "f":
        raise UnsupportedInstruction(f"unsupported instruction '{i.opcode}'")
    d, a, mask = i.operands
    return collective(reduce, operation, results=[(d, dtype)], sources=[(a, dtype), (mask, U32)])


@decodes("activemask")
def decode_active_mask(i):
    return collective(active_mask, results=[(i.operands[0], U32)])


def trap(machine, opcode):
    machine.trap(opcode)


@decodes("trap", "brkpt")
def decode_trap(i):
    return collective(trap)


@decodes("membar", "prefetch", "prefetchu", "nanosleep", "discard", "pmevent")
def nothing(i):
    return Operation(lambda *values: None, [], [])
