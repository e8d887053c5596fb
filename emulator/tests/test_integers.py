"""Integer instructions against Python's integers."""

import numpy as np
import pytest

from emulator.tests.template import run

EDGES = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, 1 << 15, 1 << 31]
CASES = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
    "div": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else -1,
    "rem": lambda a, b: a - b * CASES["div"](a, b) if b else -1,
}
BITWISE = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def values(n_bits, signed=False, n=512, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 1 << 63, n, np.uint64) * np.uint64(2) + rng.integers(0, 2, n, np.uint64)
    raw >>= rng.integers(0, 64, n, np.uint64)
    edges = np.array([e % 2**64 for x in EDGES for e in (x, -x, ~x)], np.uint64)
    rng.shuffle(edges)
    raw[: len(edges)] = edges
    return raw.astype(f"u{n_bits // 8}").view(f"{'i' if signed else 'u'}{n_bits // 8}")


def expected(function, dtype, *arrays):
    mask = (1 << 8 * np.dtype(dtype).itemsize) - 1
    results = [
        int(function(*row)) & mask for row in zip(*(a.tolist() for a in arrays), strict=True)
    ]
    return np.array(results, np.uint64).astype(f"u{np.dtype(dtype).itemsize}").view(dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_arithmetic(name, kind):
    n_bits, signed = int(kind[1:]), kind[0] == "s"
    a, b = values(n_bits, signed), values(n_bits, signed, seed=1)
    if name in ("div", "rem"):  # the quotient of the least integer by -1 does not exist
        b[(a == np.iinfo(a.dtype).min) & (b == -1) if signed else []] = 3
    result = run(f"{name}.{kind} %d0, %a0, %a1;", [a, b], [a.dtype])
    np.testing.assert_array_equal(result, expected(CASES[name], a.dtype, a, b))


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_high_and_wide_products(kind):
    n_bits, signed = int(kind[1:]), kind[0] == "s"
    a, b = values(n_bits, signed), values(n_bits, signed, seed=1)
    result = run(f"mul.hi.{kind} %d0, %a0, %a1;", [a, b], [a.dtype])
    np.testing.assert_array_equal(result, expected(lambda a, b: a * b >> n_bits, a.dtype, a, b))
    c = values(n_bits, signed, seed=2)
    result = run(f"mad.lo.{kind} %d0, %a0, %a1, %a2;", [a, b, c], [a.dtype])
    np.testing.assert_array_equal(result, expected(lambda a, b, c: a * b + c, a.dtype, a, b, c))
    if n_bits == 64:
        return
    wide = np.dtype(f"{a.dtype.kind}{n_bits // 4}")
    result = run(f"mul.wide.{kind} %d0, %a0, %a1;", [a, b], [wide])
    np.testing.assert_array_equal(result, expected(lambda a, b: a * b, wide, a, b))
    c = values(2 * n_bits, signed, seed=2)
    result = run(f"mad.wide.{kind} %d0, %a0, %a1, %a2;", [a, b, c], [wide])
    np.testing.assert_array_equal(result, expected(lambda a, b, c: a * b + c, wide, a, b, c))


@pytest.mark.parametrize("name", BITWISE)
@pytest.mark.parametrize("n_bits", [16, 32, 64])
def test_bitwise(name, n_bits):
    a, b = values(n_bits), values(n_bits, seed=1)
    result = run(f"{name}.b{n_bits} %d0, %a0, %a1;", [a, b], [a.dtype])
    np.testing.assert_array_equal(result, expected(BITWISE[name], a.dtype, a, b))
    result = run(f"not.b{n_bits} %d0, %a0;", [a], [a.dtype])
    np.testing.assert_array_equal(result, ~a)
    result = run(f"cnot.b{n_bits} %d0, %a0;", [a], [a.dtype])
    np.testing.assert_array_equal(result, a == 0)


@pytest.mark.parametrize("kind", ["b16", "s16", "b32", "u32", "s32", "b64", "s64"])
def test_shifts(kind):
    n_bits, signed = int(kind[1:]), kind[0] == "s"
    a, amount = values(n_bits, signed), values(32, seed=1)
    amount[::2] %= 70
    names = {"shr": lambda a, n: a >> min(n, 64)}
    if kind[0] == "b":
        names["shl"] = lambda a, n: a << min(n, 64)
    for name, function in names.items():
        result = run(f"{name}.{kind} %d0, %a0, %a1;", [a, amount], [a.dtype])
        np.testing.assert_array_equal(result, expected(function, a.dtype, a, amount))
        for n in (0, 5, 63, 200):
            result = run(f"{name}.{kind} %d0, %a0, {n};", [a], [a.dtype])
            amounts = np.full_like(amount, n)
            np.testing.assert_array_equal(result, expected(function, a.dtype, a, amounts))


def test_neg_abs_and_saturating_sum():
    a, b = values(32, True), values(32, True, seed=1)
    np.testing.assert_array_equal(run("neg.s32 %d0, %a0;", [a], ["i4"]), -a)
    np.testing.assert_array_equal(run("abs.s32 %d0, %a0;", [a], ["i4"]), np.abs(a))
    result = run("add.sat.s32 %d0, %a0, %a1;", [a, b], ["i4"])
    exact = a.astype(np.int64) + b
    np.testing.assert_array_equal(result, np.clip(exact, -(2**31), 2**31 - 1))


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_fields(kind):
    n_bits, signed = int(kind[1:]), kind[0] == "s"
    a, b = values(n_bits, signed), values(n_bits, seed=3)
    position, length = values(32, seed=1) % 80, values(32, seed=2) % 80
    if n_bits == 32:
        position[-1] += 256  # only the low 8 bits count

    def extract(a, position, length):
        position, length = position & 255, length & 255
        bits = a & (1 << n_bits) - 1
        if length == 0:
            return 0
        sign = bits >> min(position + length - 1, n_bits - 1) & 1 if signed else 0
        below = [bits >> position + k & 1 if position + k < n_bits else sign for k in range(length)]
        below = [*below[:n_bits], *[sign] * (n_bits - len(below))]
        return sum(bit << k for k, bit in enumerate(below))

    def insert(a, b, position, length):
        mask = ((1 << min(length & 255, n_bits)) - 1) << (position & 255)
        return b & ~mask | (a << (position & 255)) & mask

    result = run(f"bfe.{kind} %d0, %a0, %a1, %a2;", [a, position, length], [a.dtype])
    np.testing.assert_array_equal(result, expected(extract, a.dtype, a, position, length))
    if not signed:
        arrays = [a, b, position, length]
        result = run(f"bfi.b{n_bits} %d0, %a0, %a1, %a2, %a3;", arrays, [a.dtype])
        np.testing.assert_array_equal(result, expected(insert, a.dtype, *arrays))


@pytest.mark.parametrize("n_bits", [32, 64])
def test_counting(n_bits):
    a = values(n_bits)
    cases = {
        f"popc.b{n_bits}": (lambda a: bin(a).count("1"), "u4"),
        f"clz.b{n_bits}": (lambda a: n_bits - a.bit_length(), "u4"),
        f"bfind.u{n_bits}": (lambda a: a.bit_length() - 1, "u4"),
        f"bfind.shiftamt.u{n_bits}": (lambda a: n_bits - a.bit_length() if a else -1, "u4"),
        f"brev.b{n_bits}": (lambda a: int(f"{a:0{n_bits}b}"[::-1], 2), a.dtype),
    }
    for opcode, (function, dtype) in cases.items():
        result = run(f"{opcode} %d0, %a0;", [a], [dtype])
        np.testing.assert_array_equal(result, expected(function, dtype, a), err_msg=opcode)
    signed = values(n_bits, True)
    result = run(f"bfind.s{n_bits} %d0, %a0;", [signed], ["u4"])
    wanted = expected(lambda a: (~a if a < 0 else a).bit_length() - 1, "u4", signed)
    np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("direction", ["l", "r"])
@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_funnel_shift(direction, mode):
    low, high, amount = values(32), values(32, seed=1), values(32, seed=2) % 50

    def shift(low, high, n):
        n = n % 32 if mode == "wrap" else min(n, 32)
        pair = high << 32 | low
        return pair << n >> 32 if direction == "l" else pair >> n

    result = run(f"shf.{direction}.{mode}.b32 %d0, %a0, %a1, %a2;", [low, high, amount], ["u4"])
    np.testing.assert_array_equal(result, expected(shift, "u4", low, high, amount))


@pytest.mark.parametrize("table", [0, 0x80, 0xE8, 0x96, 0xCA, 0xFF])
def test_logic_of_three(table):
    a, b, c = values(32), values(32, seed=1), values(32, seed=2)

    def look_up(a, b, c):
        bits = [(a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1) for k in range(32)]
        return sum((table >> bit & 1) << k for k, bit in enumerate(bits))

    result = run(f"lop3.b32 %d0, %a0, %a1, %a2, {table};", [a, b, c], ["u4"])
    np.testing.assert_array_equal(result, expected(look_up, "u4", a, b, c))


def test_permute_bytes():
    a, b, selector = values(32), values(32, seed=1), values(32, seed=2)

    def permute(a, b, selector):
        pool = (b << 32 | a).to_bytes(8, "little")
        result = 0
        for k in range(4):
            nibble = selector >> 4 * k & 15
            byte = pool[nibble & 7]
            byte = (255 if byte >> 7 else 0) if nibble & 8 else byte
            result |= byte << 8 * k
        return result

    result = run("prmt.b32 %d0, %a0, %a1, %a2;", [a, b, selector], ["u4"])
    np.testing.assert_array_equal(result, expected(permute, "u4", a, b, selector))
    result = run("prmt.b32 %d0, %a0, %a1, 0x7531;", [a, b], ["u4"])
    wanted = expected(permute, "u4", a, b, np.full_like(a, 0x7531))
    np.testing.assert_array_equal(result, wanted)
