"""Tensor-core instructions: mma, ldmatrix, stmatrix, movmatrix.

Lane 4 g + t of a warp holds, per 8x8 tile of halves, columns 2t and 2t + 1 of row g.
"""

import numpy as np

from emulator.ptx.accesses import Access, parts_of
from emulator.ptx.dtypes import BYTES16, F16, F32, U16, U32
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.floats import unpack_bf16x2, unpack_f16x2
from emulator.ptx.memory import WINDOWS
from emulator.ptx.operation import Operation, decodes
from emulator.ptx.warp import collective, need_whole_warps

SHAPES = {  # registers of A, registers of B, elements in a register
    ("m16n8k16", "f16"): (4, 2, 2),
    ("m16n8k8", "f16"): (2, 1, 2),
    ("m16n8k16", "bf16"): (4, 2, 2),
    ("m16n8k8", "bf16"): (2, 1, 2),
    ("m16n8k8", "tf32"): (4, 2, 1),
    ("m16n8k4", "tf32"): (2, 1, 1),
}


def elements(register, kind):
    """A register's elements as (lanes, elements)."""
    if kind == "f16":
        return register.view(F16).reshape(-1, 2)
    if kind == "bf16":
        return unpack_bf16x2(register)
    return (register & U32.type(0xFFFFE000)).view(F32).reshape(-1, 1)


def planes(registers, kind, n_warps, per_register):
    """Registers as float64 matrices of 8 rows each: (registers, warps, 8, columns)."""
    result = np.empty((len(registers), n_warps, 8, 4 * per_register))
    for plane, register in zip(result, registers, strict=True):
        plane.reshape(-1, per_register)[:] = elements(register, kind)
    return result


def rounded(sums):
    """Float64 sums as float32; GPUs may cut them off instead."""
    return sums.astype(F32)


def multiply(machine, opcode, shape, kind, result, addend, *registers):
    """D = A B + C with exact products, float64 sums and one rounding at the end."""
    warps = need_whole_warps(machine, opcode)
    machine.n_mma += warps.n
    n_a, n_b, per_register = SHAPES[shape, kind]
    a, b, c = registers[:n_a], registers[n_a : n_a + n_b], registers[n_a + n_b :]

    def a_planes():  # rows g and g + 8, and the same of the next half of k
        return planes(a, kind, warps.n, per_register)

    def b_planes():  # column g, and the same of the next half of k
        columns = planes(b, kind, warps.n, per_register)
        return np.ascontiguousarray(columns.swapaxes(2, 3))

    left = machine.remember("a" + kind, a, a_planes)
    right = machine.remember("b" + kind, b, b_planes)
    total = np.matmul(left[:2], right[0])  # (rows g or g + 8, warps, g, columns)
    if n_b == 2:
        total += np.matmul(left[2:], right[1])
    total = total.reshape(2, -1, 2)
    if addend == "f16":
        total += np.stack([unpack_f16x2(register) for register in c])
        sums = [total[k // 2, :, k % 2] for k in range(4)]
    else:
        sums = [total[k // 2, :, k % 2] + c[k] for k in range(4)]
    if result == "f32":
        return [rounded(value) for value in sums]
    return [np.stack(sums[k : k + 2], axis=1).astype(F16).view(U32)[:, 0] for k in (0, 2)]


@decodes("mma")
def decode_multiply(i):
    modifiers = [m for m in i.modifiers if m not in ("sync", "aligned")]
    shape, a_layout, b_layout, result, a_kind, b_kind, addend = modifiers
    if (a_layout, b_layout) != ("row", "col") or a_kind != b_kind:
        raise UnsupportedInstruction(f"unsupported layout or types in '{i.opcode}'")
    d, a, b, c = (parts_of(operand) for operand in i.operands)
    counts = [len(a), len(b), len(c), len(d)]
    n_registers = {"f32": 4, "f16": 2}
    if counts != [*SHAPES[shape, a_kind][:2], n_registers[addend], n_registers[result]]:
        raise UnsupportedInstruction(f"wrong number of registers in '{i.opcode}'")
    dtypes = {"f32": F32, "f16": U32}
    return collective(
        multiply,
        *(shape, a_kind, result, addend),
        results=[(o, dtypes[result]) for o in d],
        sources=[*((o, U32) for o in [*a, *b]), *((o, dtypes[addend]) for o in c)],
        flush=False,
    )


# 8x8 matrices of 16-bit elements in shared memory


class MatrixAccess(Access):
    """ldmatrix and stmatrix: lane 8 m + r of a warp gives the address of row r of matrix m."""

    def __init__(self, kind, offset, n_matrices, transposed):
        super().__init__(kind, "shared", offset, BYTES16)
        self.n_matrices, self.transposed = n_matrices, transposed

    def __call__(self, machine, address, *registers):
        warps = need_whole_warps(machine, self.instruction.opcode)
        n = self.n_matrices
        lanes = machine.active_lanes().reshape(-1, 32)[:, : 8 * n].reshape(-1)
        row_address = warps.rows(address)[:, : 8 * n].reshape(-1)
        with machine.only_lanes(lanes):
            view, index = self.locate(machine, "shared", row_address)
            index = np.broadcast_to(index, lanes.shape)
            if self.kind == "load":
                if machine.watches("shared"):
                    machine.watch(self, "shared", view, index)
                return self.distribute(view[index].view(U32).reshape(warps.n, n, 32))
            words = [warps.rows(register) for register in registers]
            values = self.collect(np.stack(words, axis=1))
            if machine.watches("shared"):
                machine.watch(self, "shared", view, index, values)
            view[index] = values
            return None

    def distribute(self, words):
        if self.transposed:
            words = transpose(words)
        rows = np.ascontiguousarray(words.transpose(1, 0, 2)).reshape(self.n_matrices, -1)
        return tuple(rows) if self.n_matrices > 1 else rows[0]

    def collect(self, words):
        if self.transposed:
            words = transpose(words)
        return words.reshape(-1).view(BYTES16)


def transpose(words):
    """(..., 32) words, each an 8x8 matrix of halves."""
    halves = words.view(U16).reshape(*words.shape[:-1], 8, 8).swapaxes(-1, -2)
    return np.ascontiguousarray(halves).view(U32).reshape(words.shape)


def matrix_access(i, kind, address):
    if i.type != "b16" or "m8n8" not in i.modifiers:
        raise UnsupportedInstruction(f"unsupported form of '{i.opcode}'")
    n_matrices = next(int(m[1:]) for m in i.modifiers if m in ("x1", "x2", "x4"))
    is_generic = not any(m.split("::")[0] == "shared" for m in i.modifiers)
    offset = address.offset - (WINDOWS["shared"] if is_generic else 0)
    return MatrixAccess(kind, offset, n_matrices, i.has("trans"))


@decodes("ldmatrix")
def load_matrix(i):
    d, address = i.operands
    results = [(part, U32) for part in parts_of(d)]
    access = matrix_access(i, "load", address)
    return Operation(access, results, [(address.base, None)], on_machine=True)


@decodes("stmatrix")
def store_matrix(i):
    address, values = i.operands
    sources = [(address.base, None), *((part, U32) for part in parts_of(values))]
    return Operation(matrix_access(i, "store", address), [], sources, on_machine=True)


def move_matrix(machine, opcode, words):
    warps = need_whole_warps(machine, opcode)
    return warps.lanes(transpose(np.ascontiguousarray(warps.rows(words))))


@decodes("movmatrix")
def decode_move_matrix(i):
    if not i.has("trans") or i.type != "b16":
        raise UnsupportedInstruction(f"unsupported form of '{i.opcode}'")
    d, a = i.operands
    return collective(move_matrix, results=[(d, U32)], sources=[(a, U32)])
