"""Kernels that numba-cuda compiled: the style of code that the emulator is for."""

import inspect
import math

import numpy as np
import pytest

from emulator.ptx import Counters
from emulator.ptx.errors import OutOfBounds, Race

pytest.importorskip("numba.cuda")

from llvmlite import ir
from numba import cuda, njit
from numba.cuda import types
from numba.cuda.extending import intrinsic

from emulator.numba_kernels import Kernel

F = np.float32
RNG = np.random.default_rng(0)


def test_grid_stride_loop():
    def axpy(a, x, y):
        for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
            y[i] += a * x[i]

    x, y = RNG.normal(size=(2, 1000)).astype(F)
    wanted = y + F(3) * x
    Kernel(axpy)(3, 64, F(3), x, y)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)


def test_two_dimensions_bytes_and_tuples():
    def spread(shape, flags, x, y):
        i, j = cuda.grid(2)
        if i < shape[0] and j < shape[1]:
            y[j, i] = x[i, j] * 2 if flags[i] else np.int32(-1)

    x = RNG.integers(0, 100, (37, 21)).astype(np.int32)
    flags = x[:, 0] > 50
    y = np.zeros((21, 37), np.int32)
    Kernel(spread)((3, 2), (16, 16), x.shape, flags, x, y)
    np.testing.assert_array_equal(y, np.where(flags[:, None], 2 * x, -1).T)


def block_sum(x, total):
    part = cuda.shared.array(128, np.float32)
    t = cuda.threadIdx.x
    s = F(0)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        s += x[i]
    part[t] = s
    cuda.syncthreads()
    n = 64
    while n > 0:
        if t < n:
            part[t] += part[t + n]
        cuda.syncthreads()
        n //= 2
    if t == 0:
        cuda.atomic.add(total, 0, part[0])


def test_shared_reduction():
    x, total = RNG.normal(size=5000).astype(F), np.zeros(1, F)
    counters = Counters()
    Kernel(block_sum)(4, 128, x, total, racecheck="global", counters=counters)
    assert total[0] == pytest.approx(x.sum(dtype=np.float64), rel=1e-5)
    assert counters.barriers == 4 * 8
    assert counters.global_atomic_lanes == 4


def test_a_forgotten_barrier_is_found():
    def wrong(x, y):
        part = cuda.shared.array(128, np.float32)
        t = cuda.threadIdx.x
        part[t] = x[t]
        y[t] = part[127 - t]

    with pytest.raises(Race):
        Kernel(wrong)(1, 128, np.ones(128, F), np.ones(128, F), racecheck="shared")


def test_an_index_past_the_end_is_found():
    def wrong(x):
        x[cuda.grid(1) + 1] = F(0)

    with pytest.raises(OutOfBounds, match=r"block \(1,0,0\) thread \(31,0,0\)"):
        Kernel(wrong)(2, 32, np.ones(64, F))


def test_atomics():
    def collect(x, counts, largest, sums):
        i = cuda.grid(1)
        if i < x.size:
            k = int(x[i] * F(8))
            cuda.atomic.add(counts, k, np.uint32(1))
            cuda.atomic.max(largest, k, x[i])
            cuda.atomic.add(sums, k, x[i])

    x = RNG.random(2000, dtype=F)
    counts, largest, sums = np.zeros(8, np.uint32), np.zeros(8, F), np.zeros(8, F)
    Kernel(collect)(20, 128, x, counts, largest, sums)
    k = (x * 8).astype(int)
    np.testing.assert_array_equal(counts, np.bincount(k))
    np.testing.assert_array_equal(largest, [x[k == j].max() for j in range(8)])
    np.testing.assert_allclose(sums, np.bincount(k, x), rtol=1e-5)


@pytest.mark.parametrize("fastmath", [True, False])
def test_mathematics(fastmath):
    def functions(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[0, i] = math.exp(x[i])
            y[1, i] = math.sin(x[i])
            y[2, i] = math.log(abs(x[i]) + F(0.5))
            y[3, i] = math.sqrt(abs(x[i]))
            y[4, i] = math.tanh(x[i])
            y[5, i] = x[i] / (abs(x[i]) + F(1))
            y[6, i] = math.floor(x[i])

    x = np.linspace(-6, 6, 500).astype(F)
    y = np.zeros((7, 500), F)
    Kernel(functions, fastmath=fastmath)(4, 128, x, y)
    x = x.astype(np.float64)
    z = np.abs(x)
    wanted = [
        np.exp(x),
        np.sin(x),
        np.log(z + 0.5),
        np.sqrt(z),
        np.tanh(x),
        x / (z + 1),
        np.floor(x),
    ]
    np.testing.assert_allclose(y, wanted, rtol=2e-6 if fastmath else 3e-7, atol=2e-6)


def test_halves():
    def double(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = np.float16(F(x[i]) * F(1.001))

    x = RNG.normal(size=300).astype(np.float16)
    y = np.zeros_like(x)
    Kernel(double)(3, 128, x, y)
    np.testing.assert_array_equal(y, (x.astype(F) * F(1.001)).astype(np.float16))


def test_warp_sum_and_dynamic_shared_memory():
    def sums(x, y):
        part = cuda.shared.array(0, np.float32)
        s = x[cuda.grid(1)]
        for k in (16, 8, 4, 2, 1):
            s += cuda.shfl_xor_sync(0xFFFFFFFF, s, k)
        if cuda.laneid == 0:
            part[cuda.threadIdx.x // 32] = s
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            y[cuda.blockIdx.x] = part[0] + part[1]

    x, y = RNG.normal(size=192).astype(F), np.zeros(3, F)
    Kernel(sums)(3, 64, x, y, shared_bytes=8)
    np.testing.assert_allclose(y, x.reshape(3, 64).sum(axis=1), rtol=1e-5)


def test_local_arrays():
    def sort(x, y):
        row = cuda.local.array(8, np.float32)
        i = cuda.grid(1)
        for k in range(8):
            row[k] = x[i, k]
        for k in range(8):
            least = k
            for j in range(k + 1, 8):
                if row[j] < row[least]:
                    least = j
            y[i, k] = row[least]
            row[least] = row[k]

    x = RNG.normal(size=(64, 8)).astype(F)
    y = np.zeros_like(x)
    Kernel(sort)(2, 32, x, y)
    np.testing.assert_array_equal(y, np.sort(x, axis=1))


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (10, 0), (12, 0)])
def test_other_targets(capability):
    x, total = np.ones(1000, F), np.zeros(1, F)
    Kernel(block_sum, capability)(2, 128, x, total)
    assert total[0] == 1000


# a fused training step: two layers, loss, backward, weight gradients and a scatter

N_IN, N_HIDDEN, WARPS = 16, 16, 2
N_WORDS = (2 + 2 * WARPS) * 128  # tiles of 16x16 halves: two of weights, two for each warp
I32, I64, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()


def assembly(text, constraints, result, arguments, side_effect=False):
    """An intrinsic that is one piece of inline PTX; several results come as a tuple."""
    n = result.count if isinstance(result, types.UniTuple) else 1
    llvm = {types.uint32: I32, types.float32: FLOAT, types.uint64: I64, types.void: ir.VoidType()}
    one = llvm[result.dtype] if n > 1 else llvm[result]
    returned = ir.LiteralStructType([one] * n) if n > 1 else one

    def codegen(context, builder, signature, values):
        kind = ir.FunctionType(returned, [value.type for value in values])
        inline = ir.InlineAsm(kind, text, constraints, side_effect=side_effect)
        value = builder.call(inline, values)
        if result == types.void:
            return context.get_dummy_value()
        if n == 1:
            return value
        parts = [builder.extract_value(value, k) for k in range(n)]
        return context.make_tuple(builder, signature.return_type, parts)

    def typed(typingctx, *given):
        return result(*arguments), codegen

    names = ["typingctx", *(f"x{k}" for k in range(len(arguments)))]
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names
    ]
    typed.__signature__ = inspect.Signature(parameters)
    return intrinsic(typed)


U, U64 = types.uint32, types.uint64
FOUR_WORDS, FOUR_FLOATS = types.UniTuple(U, 4), types.UniTuple(types.float32, 4)
mma = assembly(
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9},"
    " {$10,$11,$12,$13};",
    "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
    FOUR_FLOATS,
    [U] * 6 + [types.float32] * 4,
)
LOAD = "ldmatrix.sync.aligned.m8n8.x4{}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
load_x4 = assembly(LOAD.format(""), "=r,=r,=r,=r,r,~{memory}", FOUR_WORDS, [U], True)
load_x4_trans = assembly(LOAD.format(".trans"), "=r,=r,=r,=r,r,~{memory}", FOUR_WORDS, [U], True)
pack = assembly("cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f", U, [types.float32] * 2)
add_pair = assembly(
    "red.global.add.noftz.f16x2 [$0], $1;", "l,r,~{memory}", types.void, [U64, U], True
)
warp_barrier = assembly("bar.warp.sync -1;", "~{memory}", types.void, [], True)


@intrinsic
def shared_address(typingctx, array):
    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        inline = ir.InlineAsm(
            ir.FunctionType(I32, [I64]),
            "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }",
            "=r,l",
        )
        return builder.call(inline, [builder.ptrtoint(data, I64)])

    return U(array), codegen


@intrinsic
def global_address(typingctx, array):
    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.ptrtoint(data, I64)

    return U64(array), codegen


ZERO = F(0)


@njit(inline="always")
def matrix_row(base, row, half):
    """The address of eight halves of a row of 16; the halves are swizzled by the row."""
    return np.uint32(base + 32 * row + 16 * (half ^ (row >> 2 & 1)))


@njit(inline="always")
def product(a, b, c0, c1):
    """C += A B for a 16x16 B."""
    return (
        mma(a[0], a[1], a[2], a[3], b[0], b[1], c0[0], c0[1], c0[2], c0[3]),
        mma(a[0], a[1], a[2], a[3], b[2], b[3], c1[0], c1[1], c1[2], c1[3]),
    )


@njit(inline="always")
def packed(c0, c1):
    """Two 16x8 sums as the A fragment of the next product."""
    return pack(c0[0], c0[1]), pack(c0[2], c0[3]), pack(c1[0], c1[1]), pack(c1[2], c1[3])


@njit(inline="always")
def where_positive(c, h):
    return (
        c[0] if h[0] > ZERO else ZERO,
        c[1] if h[1] > ZERO else ZERO,
        c[2] if h[2] > ZERO else ZERO,
        c[3] if h[3] > ZERO else ZERO,
    )


@njit(inline="always")
def relu(c):
    return max(c[0], ZERO), max(c[1], ZERO), max(c[2], ZERO), max(c[3], ZERO)


@njit(inline="always")
def store(words, tile, lane, fragment):
    """A fragment as a 16x16 tile of halves in rows, in shared memory as words."""
    row, pair = lane >> 2, lane & 3
    for k in range(4):
        r, half = row + 8 * (k & 1), k >> 1
        words[tile + 8 * r + 4 * (half ^ (r >> 2 & 1)) + pair] = fragment[k]


def training_step(table, index, w1, w2, target, dw1, dw2, dtable, loss):
    words = cuda.shared.array(N_WORDS, np.uint32)
    t = cuda.threadIdx.x
    lane, warp = t & 31, t >> 5
    base = shared_address(words)
    for i in range(t, 128, 32 * WARPS):
        row, pair = i >> 3, i & 7
        place = 8 * row + 4 * (pair >> 2 ^ (row >> 2 & 1)) + (pair & 3)
        words[place] = w1[i]
        words[128 + place] = w2[i]
    cuda.syncthreads()
    first = (cuda.blockIdx.x * WARPS + warp) * 16
    row, pair = lane >> 2, lane & 3
    x = (
        table[index[first + row] * 8 + pair],
        table[index[first + row + 8] * 8 + pair],
        table[index[first + row] * 8 + pair + 4],
        table[index[first + row + 8] * 8 + pair + 4],
    )
    zero = (ZERO, ZERO, ZERO, ZERO)
    matrix, r = lane >> 3, lane & 7
    plain = r + 8 * (matrix >> 1), matrix & 1
    turned = r + 8 * (matrix & 1), matrix >> 1
    b = load_x4(matrix_row(base, plain[0], plain[1]))
    c0, c1 = product(x, b, zero, zero)
    h0, h1 = relu(c0), relu(c1)
    hidden = packed(h0, h1)
    b = load_x4(matrix_row(base + np.uint32(512), plain[0], plain[1]))
    y0, y1 = product(hidden, b, zero, zero)
    error = ZERO
    d0, d1 = zero, zero
    for k in range(4):
        sample, column = first + row + 8 * (k >> 1), 2 * pair + (k & 1)
        e0 = y0[k] - target[sample, column]
        e1 = y1[k] - target[sample, column + 8]
        error += e0 * e0 + e1 * e1
        if k == 0:
            d0, d1 = (e0, d0[1], d0[2], d0[3]), (e1, d1[1], d1[2], d1[3])
        elif k == 1:
            d0, d1 = (d0[0], e0, d0[2], d0[3]), (d1[0], e1, d1[2], d1[3])
        elif k == 2:
            d0, d1 = (d0[0], d0[1], e0, d0[3]), (d1[0], d1[1], e1, d1[3])
        else:
            d0, d1 = (d0[0], d0[1], d0[2], e0), (d1[0], d1[1], d1[2], e1)
    cuda.atomic.add(loss, 0, error)
    dy = packed(d0, d1)
    b = load_x4_trans(matrix_row(base + np.uint32(512), turned[0], turned[1]))
    c0, c1 = product(dy, b, zero, zero)
    c0, c1 = where_positive(c0, h0), where_positive(c1, h1)
    dh = packed(c0, c1)
    tile = 256 + 256 * warp
    for layer in range(2):  # dW = dY^T H and dH^T X, from tiles in shared memory
        warp_barrier()
        store(words, tile, lane, dy if layer == 0 else dh)
        store(words, tile + 128, lane, hidden if layer == 0 else x)
        warp_barrier()
        there = np.uint32(base + np.uint32(4 * tile))
        a = load_x4_trans(matrix_row(there, plain[0], plain[1]))
        b = load_x4_trans(matrix_row(np.uint32(there + np.uint32(512)), turned[0], turned[1]))
        g0, g1 = product(a, b, zero, zero)
        for k in range(4):
            place = (row + 8 * (k >> 1)) * 16 + 2 * pair + (k & 1)
            cuda.atomic.add(dw2 if layer == 0 else dw1, place, g0[k])
            cuda.atomic.add(dw2 if layer == 0 else dw1, place + 8, g1[k])
    b = load_x4_trans(matrix_row(base, turned[0], turned[1]))
    c0, c1 = product(dh, b, zero, zero)
    out = global_address(dtable)
    for k in range(2):
        entry = out + np.uint64(index[first + row + 8 * k]) * np.uint64(32)
        add_pair(entry + np.uint64(4 * pair), pack(c0[2 * k], c0[2 * k + 1]))
        add_pair(entry + np.uint64(4 * pair + 16), pack(c1[2 * k], c1[2 * k + 1]))


def half(x):
    return np.asarray(x).astype(np.float16).astype(np.float64)


def test_fused_training_step():
    n, n_entries = 4 * 16 * WARPS, 50
    table = RNG.normal(size=(n_entries, N_IN)).astype(np.float16)
    w1 = RNG.normal(scale=0.3, size=(N_HIDDEN, N_IN)).astype(np.float16)
    w2 = RNG.normal(scale=0.3, size=(16, N_HIDDEN)).astype(np.float16)
    index = RNG.integers(0, n_entries, n).astype(np.int32)
    target = RNG.normal(size=(n, 16)).astype(F)
    dw1, dw2, loss = np.zeros(256, F), np.zeros(256, F), np.zeros(1, F)
    dtable = np.zeros((n_entries, N_IN // 2), np.uint32)
    words = [array.view(np.uint32).reshape(-1) for array in (table, w1, w2)]
    arguments = [words[0], index, *words[1:], target, dw1, dw2, dtable, loss]
    counters = Counters()
    kernel = Kernel(training_step)
    kernel(n // (16 * WARPS), 32 * WARPS, *arguments, counters=counters, racecheck="shared")

    x, a1, a2 = half(table[index]), half(w1), half(w2)
    pre = x @ a1.T
    h = half(np.maximum(pre, 0))
    error = h @ a2.T - target
    dy = half(error)
    dh = half(dy @ a2 * (pre > 0))
    wanted = np.zeros((n_entries, N_IN))
    np.add.at(wanted, index, dh @ a1)
    assert loss[0] == pytest.approx((error**2).sum(), rel=1e-5)
    np.testing.assert_allclose(dw2.reshape(16, 16), dy.T @ h, rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(dw1.reshape(16, 16), dh.T @ x, rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(dtable.view(np.float16), wanted, rtol=1e-2, atol=3e-2)
    assert counters.mma == n // 16 * 12
    assert counters.shared_conflicts == 0
    assert counters.global_atomic_lanes == 2 * n * (1 + 16 + 4)
