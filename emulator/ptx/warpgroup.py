"""Tensor-core instructions of warpgroups, four warps together: wgmma, and the fence they need.

A product is computed at once when it is issued; hardware may take until wgmma.wait_group.
"""

import re

import numpy as np

from emulator.ptx.accesses import Access, parts_of
from emulator.ptx.dtypes import BYTES16, F16, F32, PREDICATE, S64, U16, U32, U64
from emulator.ptx.errors import DivergentCollective, Race, UnsupportedInstruction
from emulator.ptx.floats import unpack_bf16, unpack_f16, unpack_f16x2
from emulator.ptx.matrix import planes, rounded
from emulator.ptx.operation import Operation, decodes
from emulator.ptx.syntax import Vector
from emulator.ptx.warp import collective, need_whole_warps, nothing

WARPS = 4
LANES = 32 * WARPS
WIDTHS = range(8, 257, 8)
ROWS, DEPTH, PIECE = 64, 16, 16  # rows and depth of a product, bytes of a row of 8 halves
FIELDS = 0xC000_3FFF_3FFF_3FFF  # of a descriptor; without a swizzle there is no base offset
SWIZZLE_SHIFT = 62


class ProxyFences:
    """Bytes of shared memory whose writers have not executed fence.proxy.async since."""

    def __init__(self, n_granules):
        self.writers = np.zeros(n_granules, np.int32)  # lane + 1 of the last one

    def watch(self, machine, access, granules):
        if access.by_warpgroup:
            self.check(machine, granules)
        elif access.kind != "load":
            lanes = machine.active_lanes()
            self.write(granules, np.repeat(lanes, granules.shape[0] // lanes.shape[0]))

    def write(self, granules, lanes):
        self.writers[granules] = lanes + 1

    def fence(self, lanes, n_lanes):
        is_here = np.zeros(n_lanes + 1, bool)
        is_here[lanes + 1] = True
        self.writers[is_here[self.writers]] = 0

    def check(self, machine, granules):
        writers = self.writers[granules]
        if writers.any():
            k = int(np.argmax(writers != 0))
            byte = int(granules[k]) * machine.program.granules["shared"] % machine.shared.stride
            thread = machine.thread_name(machine.threads(writers[k : k + 1] - 1)[0])
            raise Race(
                f"wgmma reads byte {byte} of shared memory, and {thread} has not executed"
                " fence.proxy.async between its write there and the barrier"
            )


def need_whole_warpgroups(machine, opcode):
    """Check that the active warps are whole warpgroups; returns how many."""
    warps = need_whole_warps(machine, opcode)
    rank = warps.numbers % (machine.lanes_per_block // 32)
    group = warps.numbers - rank % WARPS  # the number of its first warp
    _, row, n_here = np.unique(group, return_inverse=True, return_counts=True)
    lonely = n_here[row] < WARPS
    if lonely.any():
        row = int(np.argmax(lonely))
        here = (rank[group == group[row]] % WARPS).tolist()
        raise DivergentCollective(
            f"{opcode}: all 4 warps of a warpgroup must execute it together: of that of"
            f" {machine.warp_name(warps, row)} only warps {here} are here"
        )
    return warps.n // WARPS


def of_groups(machine, opcode, what, values, n_groups):
    """One value per warpgroup of a value that must be the same in all its lanes."""
    rows = np.broadcast_to(values, n_groups * LANES).reshape(n_groups, LANES)
    if (rows != rows[:, :1]).any():
        row = int(np.argmax((rows != rows[:, :1]).any(axis=1)))
        raise DivergentCollective(
            f"{opcode}: the {what} differs between the lanes of a warpgroup, whose first warp is"
            f" {machine.warp_name(machine.warps(), WARPS * row)}"
        )
    return rows[:, 0]


class MatrixInShared(Access):
    """Matrix of 16-bit numbers that a descriptor gives: (warpgroups, extent, depth).

    It consists of 8x8 matrices whose rows are 16 bytes, one after the other. Bytes from one to
    the next: the leading offset along the depth, the stride offset along the extent.
    """

    by_warpgroup = True

    def __init__(self, name, extent, kind, transposed):
        super().__init__("load", "shared", 0, BYTES16)
        self.name, self.extent, self.transposed = name, extent, transposed
        self.to_numbers = unpack_f16 if kind == "f16" else unpack_bf16

    def __call__(self, machine, descriptors, n_groups):
        opcode = self.instruction.opcode
        what = f"descriptor of {self.name}"
        descriptors = of_groups(machine, opcode, what, descriptors, n_groups)
        for descriptor in np.unique(descriptors).tolist():
            check_descriptor(opcode, what, descriptor)
        start, leading, stride = (
            ((descriptors >> U64.type(shift) & U64.type(0x3FFF)) << U64.type(4)).view(S64)
            for shift in (0, 16, 32)
        )
        address = start[:, None, None, None] + np.arange(8) * PIECE
        address = address + np.arange(2)[:, None, None] * leading[:, None, None, None]
        address = address + np.arange(self.extent // 8)[:, None] * stride[:, None, None, None]
        n_pieces = 2 * self.extent
        lanes = np.repeat(machine.active_lanes()[::LANES], n_pieces)
        with machine.only_lanes(lanes):
            view, index = self.locate(machine, "shared", address.reshape(-1).astype(U64))
            if machine.watches("shared"):
                machine.check(self, "shared", view, index)
            numbers = self.to_numbers(view[index].view(U16)).astype(np.float64)
        numbers = numbers.reshape(n_groups, 2, self.extent // 8, 8, 8)
        order = (0, 2, 4, 1, 3) if self.transposed else (0, 2, 3, 1, 4)
        return numbers.transpose(order).reshape(n_groups, self.extent, DEPTH)


def check_descriptor(opcode, what, descriptor):
    if descriptor >> SWIZZLE_SHIFT:
        raise UnsupportedInstruction(f"{opcode}: unsupported swizzle in the {what} {descriptor:#x}")
    if descriptor & ~FIELDS:
        raise UnsupportedInstruction(
            f"{opcode}: the {what} {descriptor:#x} has bits outside of its fields"
        )


def matrix_in_registers(registers, kind, n_groups):
    """Fragments of four warps as (warpgroups, 64, 16): registers as those of A of m16n8k16."""
    parts = planes(registers, kind, n_groups * WARPS, 2)  # (registers, warps, 8, 8)
    parts = parts.reshape(2, 2, n_groups, WARPS, 8, 8)  # half of the depth, half of the rows
    return parts.transpose(2, 3, 1, 4, 0, 5).reshape(n_groups, ROWS, DEPTH)


class WarpgroupProduct:
    """D = A B + D, or A B, with exact products, float64 sums and one rounding at the end."""

    def __init__(self, width, result, kind, signs, a_in_shared, b_in_shared):
        self.width, self.result, self.kind = width, result, kind
        self.sign = signs[0] * signs[1]
        self.a_in_shared, self.b_in_shared = a_in_shared, b_in_shared

    def prepare(self, unit, instruction):
        self.opcode = instruction.opcode
        for access in (self.a_in_shared, self.b_in_shared):
            if access is not None:
                access.prepare(unit, instruction)

    def __call__(self, machine, b, adds, *registers):
        n_groups = need_whole_warpgroups(machine, self.opcode)
        if not machine.has_fenced[machine.warps().numbers].all():
            raise Race(f"{self.opcode}: no wgmma.fence orders the registers before it")
        adds = of_groups(machine, self.opcode, "scale-d", adds, n_groups)
        n_a = 4 if self.a_in_shared is None else 1
        a, addends = registers[:n_a], registers[n_a:]
        if self.a_in_shared is None:
            left = matrix_in_registers(a, self.kind, n_groups)
        else:
            left = self.a_in_shared(machine, a[0], n_groups)
        right = self.b_in_shared(machine, b, n_groups)
        total = self.sign * np.matmul(left, right.swapaxes(1, 2))
        machine.n_mma += n_groups * WARPS * (self.width // 8)
        return self.collect(self.distribute(total, n_groups), addends, np.repeat(adds, LANES))

    def distribute(self, total, n_groups):
        """(warpgroups, 64, width) to (width / 2, lanes): as D of m16n8k16, side by side."""
        parts = total.reshape(n_groups, WARPS, 2, 8, self.width // 8, 4, 2)
        return parts.transpose(4, 2, 6, 0, 1, 3, 5).reshape(self.width // 2, -1)

    def collect(self, sums, addends, adds):
        if self.result == "f32":
            pairs = zip(sums, addends, strict=True)
            return tuple(rounded(np.where(adds, value + addend, value)) for value, addend in pairs)
        packed = []
        for k, addend in enumerate(addends):
            pair = sums[2 * k : 2 * k + 2].T
            pair = np.where(adds[:, None], pair + unpack_f16x2(addend), pair)
            packed.append(np.ascontiguousarray(pair.astype(F16)).view(U32)[:, 0])
        return tuple(packed)


def decode_product(i):
    form = re.fullmatch(r"m64n(\d+)k16\.(f32|f16)\.(f16|bf16)\.(\w+)", ".".join(i.modifiers[3:]))
    width, result, kind, other = int(form[1]), *form.groups()[1:]
    if width not in WIDTHS or other != kind or (result, kind) == ("f16", "bf16"):
        raise UnsupportedInstruction(f"unsupported shape or types in '{i.opcode}'")
    d, a, b, adds, *numbers = i.operands
    in_shared = not isinstance(a, Vector)
    *signs, transposed_b = [number.value for number in numbers]
    transposed_a = signs.pop() if in_shared else 0
    wrong = [sign for sign in signs if sign not in (1, -1)]
    wrong += [flag for flag in (transposed_a, transposed_b) if flag not in (0, 1)]
    n_sums = width // 2 if result == "f32" else width // 4
    if wrong or len(signs) != 2 or len(parts_of(d)) != n_sums:
        raise UnsupportedInstruction(f"wrong operands of '{i.opcode}'")
    a_in_shared = MatrixInShared("A", ROWS, kind, transposed_a) if in_shared else None
    b_in_shared = MatrixInShared("B", width, kind, transposed_b)
    dtype = F32 if result == "f32" else U32
    sums = [(part, dtype) for part in parts_of(d)]
    a = [(a, U64)] if in_shared else [(part, U32) for part in a.parts]
    if len(a) != (1 if in_shared else 4):
        raise UnsupportedInstruction(f"wrong number of registers of A in '{i.opcode}'")
    sources = [(b, U64), (adds, PREDICATE), *a, *sums]
    function = WarpgroupProduct(width, result, kind, signs, a_in_shared, b_in_shared)
    return Operation(function, sums, sources, flush=False, on_machine=True)


def fence_registers(machine, opcode):
    need_whole_warpgroups(machine, opcode)
    machine.has_fenced[machine.warps().numbers] = True


@decodes("wgmma")
def decode_warpgroup(i):
    if i.modifiers[0] == "mma_async":
        return decode_product(i)
    if i.modifiers[0] == "fence":
        return collective(fence_registers)
    if i.modifiers[0] in ("commit_group", "wait_group"):
        return collective(need_whole_warpgroups)
    raise UnsupportedInstruction(f"unsupported instruction '{i.opcode}'")


def fence_proxy(machine, opcode):
    if machine.proxy_fences is not None:
        machine.proxy_fences.fence(machine.active_lanes(), machine.n_lanes)


@decodes("fence")
def decode_fence(i):
    return collective(fence_proxy) if i.modifiers[:2] == ["proxy", "async"] else nothing(i)
