"""Tensor-core instructions. The fragment layouts are those of the tables of the PTX ISA,
"Matrix multiply-accumulate operation using mma instruction", written out per lane and element."""

from functools import partial

import numpy as np
import pytest

from emulator.tests.exact import samples, to_bits, to_floats
from emulator.tests.template import run

RNG = np.random.default_rng(0)
LANES = range(32)


def a_place(shape, kind, lane, i):
    """(row, column) of element i of A: figures of m16n8k16 and m16n8k8 for each type."""
    group, t = lane >> 2, lane % 4
    if kind == "tf32":
        row = group if i in (0, 2) else group + 8
        return row, t if i < 2 else t + 4
    if shape == "m16n8k8":
        return group if i < 2 else group + 8, t * 2 + (i & 1)
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    return row, t * 2 + (i & 1) + (0 if i < 4 else 8)


def b_place(shape, kind, lane, i):
    group, t = lane >> 2, lane % 4
    if kind == "tf32":
        return t + 4 * i, group
    row = t * 2 + (i & 1) + (0 if i < 2 else 8)
    return row, group


def c_place(lane, i):
    return (lane >> 2) + (8 if i >= 2 else 0), lane % 4 * 2 + (i & 1)


def fragment(matrix, place, n_elements, kind):
    """Registers (n_registers, 32) of a matrix of numbers."""
    bits = to_bits(matrix, "f32" if kind in ("tf32", "f32") else kind)
    rows = [[bits[place(lane, i)] for i in range(n_elements)] for lane in LANES]
    return np.ascontiguousarray(np.array(rows).view(np.uint32).T)


@pytest.mark.parametrize(
    ("shape", "kind", "k", "sum_kind"),
    [
        ("m16n8k16", "f16", 16, "f32"),
        ("m16n8k16", "f16", 16, "f16"),
        ("m16n8k8", "f16", 8, "f32"),
        ("m16n8k8", "f16", 8, "f16"),
        ("m16n8k16", "bf16", 16, "f32"),
        ("m16n8k8", "bf16", 8, "f32"),
        ("m16n8k8", "tf32", 8, "f32"),
    ],
)
def test_multiply(shape, kind, k, sum_kind):
    small = {"f16": 6, "bf16": 3, "tf32": 6}[kind]
    a, b, c = (RNG.integers(-(1 << small), 1 << small, s) / 4 for s in ((16, k), (k, 8), (16, 8)))
    per_lane = 16 * k // 32, k * 8 // 32
    registers_a = fragment(a, partial(a_place, shape, kind), per_lane[0], kind)
    registers_b = fragment(b, partial(b_place, shape, kind), per_lane[1], kind)
    registers_c = fragment(c, c_place, 4, sum_kind)
    arrays = [*registers_a, *registers_b, *registers_c]
    n_a, n_b, n_c = len(registers_a), len(registers_b), len(registers_c)
    names = [f"%a{j}" for j in range(len(arrays))]
    register = "f" if sum_kind == "f32" else "r"
    moves = [f"mov.b32 %{register}{j + 1}, {name};" for j, name in enumerate(names[n_a + n_b :])]
    sums = ", ".join(f"%{register}{j + 1}" for j in range(n_c))
    outputs = ", ".join(f"%{register}{j + 11}" for j in range(n_c))
    instruction = (
        f"mma.sync.aligned.{shape}.row.col.{sum_kind}.{kind}.{kind}.{sum_kind} {{{outputs}}},"
        f" {{{', '.join(names[:n_a])}}}, {{{', '.join(names[n_a : n_a + n_b])}}}, {{{sums}}};"
    )
    stores = [f"mov.b32 %d{j}, %{register}{j + 11};" for j in range(n_c)]
    results = run("\n".join([*moves, instruction, *stores]), arrays, ["u4"] * n_c)
    exact = a @ b + c
    wanted = fragment(exact, c_place, 4, sum_kind)
    np.testing.assert_array_equal(np.array(results), wanted)


def test_multiply_rounds_once_and_reads_tf32():
    ones, x = np.ones(32, np.uint32), samples("f32", 32, spread=3)
    body = """mov.b32 %r1, 0;
        mov.f32 %f1, 0f00000000;
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%d0, %d1, %d2, %d3},
            {%a0, %r1, %r1, %r1}, {%a1, %r1}, {%f1, %f1, %f1, %f1};"""
    a = np.where(np.arange(32) % 4 == 0, x, np.float32(0)).view(np.uint32)  # column 0 of A
    b = np.where(np.arange(32) == 0, np.float32(1).view(np.uint32), 0 * ones)  # B[0, 0] = 1
    first, *_ = run(body, [a, b], ["f4"] * 4)
    cut = (x.view(np.uint32) & 0xFFFFE000).view(np.float32)
    assert first[::4].tolist() == cut[::4].tolist()


def test_multiply_of_many_warps():
    a, b = RNG.normal(size=(6, 16, 16)), RNG.normal(size=(6, 16, 8))
    a, b = (to_floats(to_bits(x, "f16"), "f16") for x in (a, b))
    place_a = partial(a_place, "m16n8k16", "f16")
    place_b = partial(b_place, "m16n8k16", "f16")
    registers_a = np.concatenate([fragment(x, place_a, 8, "f16") for x in a], axis=1)
    registers_b = np.concatenate([fragment(x, place_b, 4, "f16") for x in b], axis=1)
    body = """mov.f32 %f1, 0f00000000;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%d0, %d1, %d2, %d3},
            {%a0, %a1, %a2, %a3}, {%a4, %a5}, {%f1, %f1, %f1, %f1};
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%d0, %d1, %d2, %d3},
            {%a0, %a1, %a2, %a3}, {%a4, %a5}, {%d0, %d1, %d2, %d3};"""
    results = run(body, [*registers_a, *registers_b], ["f4"] * 4, grid=3)
    for warp in range(6):
        exact = 2 * (a[warp] @ b[warp])
        for i, result in enumerate(results):
            wanted = [exact[c_place(lane, i)] for lane in LANES]
            np.testing.assert_allclose(result[32 * warp :][:32], wanted, rtol=2e-7, atol=1e-7)


# 8x8 matrices: thread 4 r + c holds elements (r, 2c) and (r, 2c + 1)


def held(matrix, lane):
    """The register of a lane for an 8x8 matrix of 16-bit numbers."""
    row, column = lane // 4, lane % 4 * 2
    return int(matrix[row, column]) | int(matrix[row, column + 1]) << 16


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_load_matrices(n, transposed):
    values = RNG.integers(0, 1 << 16, (2, 512)).astype(np.uint16)  # per warp 1 KiB
    rows = RNG.permutation(64)[: 8 * 4].astype(np.uint32)  # rows of 16 bytes, any order
    trans = ".trans" if transposed else ""
    registers = ", ".join(f"%d{k}" for k in range(n))
    body = f"""mov.u32 %r1, data;
        mad.lo.u32 %r2, %t, 16, %r1;
        mad.lo.u32 %r2, %t, 16, %r2;
        st.shared.v4.b32 [%r2], {{%a0, %a1, %a2, %a3}};
        st.shared.v4.b32 [%r2+16], {{%a4, %a5, %a6, %a7}};
        bar.warp.sync -1;
        and.b32 %r3, %t, 32;
        mad.lo.u32 %r3, %r3, 32, %r1;
        mad.lo.u32 %r3, %a8, 16, %r3;
        ldmatrix.sync.aligned.m8n8.x{n}{trans}.shared.b16 {{{registers}}}, [%r3];"""
    words = values.reshape(64, 16).view(np.uint32).T
    arrays = [*words, np.tile(rows, 2)]
    results = run(body, arrays, ["u4"] * n, shared_bytes=2048, racecheck="shared")
    results = [results] if n == 1 else results
    for warp in range(2):
        lines = values[warp].reshape(64, 8)
        for k in range(n):
            matrix = lines[rows[8 * k : 8 * k + 8]]
            matrix = matrix.T if transposed else matrix
            wanted = [held(matrix, lane) for lane in LANES]
            np.testing.assert_array_equal(results[k][32 * warp :][:32], wanted)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_store_matrices(n, transposed):
    registers = RNG.integers(0, 1 << 32, (n, 32)).astype(np.uint32)
    rows = RNG.permutation(32).astype(np.uint32)
    trans = ".trans" if transposed else ""
    sources = ", ".join(f"%a{k}" for k in range(n))
    body = f"""mov.u32 %r1, data;
        mad.lo.u32 %r3, %a{n}, 16, %r1;
        stmatrix.sync.aligned.m8n8.x{n}{trans}.shared.b16 [%r3], {{{sources}}};
        bar.warp.sync -1;
        mad.lo.u32 %r2, %t, 16, %r1;
        ld.shared.v4.b32 {{%d0, %d1, %d2, %d3}}, [%r2];"""
    words = run(body, [*registers, rows], ["u4"] * 4, shared_bytes=512, initcheck=False)
    stored = np.ascontiguousarray(np.array(words).T).view(np.uint16)  # [row, column]
    for k in range(n):
        matrix = stored[rows[8 * k : 8 * k + 8]]
        matrix = matrix.T if transposed else matrix
        assert [held(matrix, lane) for lane in LANES] == registers[k].tolist()


def test_move_matrix_transposes():
    matrix = RNG.integers(0, 1 << 16, (8, 8))
    registers = np.array([held(matrix, lane) for lane in LANES], np.uint32)
    result = run("movmatrix.sync.aligned.m8n8.trans.b16 %d0, %a0;", [registers], ["u4"])
    assert result.tolist() == [held(matrix.T, lane) for lane in LANES]
