"""cvt, mov, packing and address conversion."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from emulator.tests.exact import round_exactly, samples, to_bits, to_floats
from emulator.tests.template import run

INTEGERS = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"]
DTYPES = {"f16": "u2", "bf16": "u2", "f32": "f4", "f64": "f8"}


def dtype_of(kind):
    return np.dtype(f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}")


@pytest.mark.parametrize("source", INTEGERS[2:])
@pytest.mark.parametrize("target", INTEGERS)
def test_between_integers(source, target):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype_of(source))
    a = rng.integers(limits.min, limits.max, 300, dtype_of(source), endpoint=True)
    a >>= rng.integers(0, 8 * a.itemsize, 300).astype(a.dtype)
    bits = int(target[1:])
    to = dtype_of(target) if bits > 8 else np.dtype("i2" if target[0] == "s" else "u2")
    result = run(f"cvt.{target}.{source} %d0, %a0;", [a], [to])
    np.testing.assert_array_equal(result, a.astype(dtype_of(target)).astype(to))
    narrow = np.iinfo(dtype_of(target))
    if narrow.min <= limits.min and limits.max <= narrow.max:
        return  # nothing to saturate, and ptxas refuses it
    result = run(f"cvt.sat.{target}.{source} %d0, %a0;", [a], [to])
    wanted = [min(max(x, narrow.min), narrow.max) for x in a.tolist()]
    np.testing.assert_array_equal(result, np.array(wanted, to))


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(DTYPES, 2)])
def test_between_floats(source, target):
    a = np.concatenate([samples(source), samples(source, seed=1, spread=14)])
    rounding = "" if (source, target) in WIDENING else ".rn"
    result = run(f"cvt{rounding}.{target}.{source} %d0, %a0;", [a], [DTYPES[target]])
    exact = [round_exactly(Fraction(x), target) for x in to_floats(a, source).tolist()]
    np.testing.assert_array_equal(to_floats(result, target), exact)
    special = to_bits([math.inf, -math.inf, math.nan, -0.0], source)
    result = run(f"cvt{rounding}.{target}.{source} %d0, %a0;", [special], [DTYPES[target]])
    floats = to_floats(result, target)
    np.testing.assert_array_equal(floats, [math.inf, -math.inf, math.nan, 0])
    assert np.signbit(floats[3])


WIDENING = {("f16", "f32"), ("f16", "f64"), ("bf16", "f32"), ("bf16", "f64"), ("f32", "f64")}


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_directed_rounding(mode):
    a = np.concatenate([samples("f64", spread=120), samples("f64", spread=20)])
    result = run(f"cvt.{mode}.f32.f64 %d0, %a0;", [a], ["f4"])
    exact = [round_exactly(Fraction(x), "f32", mode) for x in a.tolist()]
    np.testing.assert_array_equal(result, np.array(exact, np.float32))


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize("target", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_float_to_integer(mode, target):
    round_ = {"rni": round, "rzi": int, "rmi": math.floor, "rpi": math.ceil}[mode]
    limits = np.iinfo(dtype_of(target))
    for source in ("f16", "f32", "f64"):
        a = np.concatenate([samples(source, spread=14), samples(source, seed=1)])
        a[::50] = to_bits(math.inf, source)
        a[7::50] = to_bits(-math.inf, source)
        result = run(f"cvt.{mode}.{target}.{source} %d0, %a0;", [a], [dtype_of(target)])

        def clamped(x):
            if math.isinf(x):
                return limits.max if x > 0 else limits.min
            return min(max(round_(x), limits.min), limits.max)

        wanted = np.array([clamped(x) for x in to_floats(a, source).tolist()], dtype_of(target))
        np.testing.assert_array_equal(result, wanted, err_msg=source)
        nan = to_bits([math.nan], source)
        result = run(f"cvt.{mode}.{target}.{source} %d0, %a0;", [nan], [dtype_of(target)])
        if "64" not in source + target:
            assert result[0] == 0


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
def test_float_to_whole_float(mode):
    a = samples("f32", spread=25)
    round_ = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode]
    result = run(f"cvt.{mode}.f32.f32 %d0, %a0;", [a], ["f4"])
    np.testing.assert_array_equal(result, round_(a))


@pytest.mark.parametrize("source", ["u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("target", ["f16", "f32", "f64"])
def test_integer_to_float(source, target):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype_of(source))
    a = rng.integers(limits.min, limits.max, 300, dtype_of(source), endpoint=True)
    a >>= rng.integers(0, 8 * a.itemsize, 300).astype(a.dtype)
    result = run(f"cvt.rn.{target}.{source} %d0, %a0;", [a], [DTYPES[target]])
    exact = [round_exactly(Fraction(x), target) for x in a.tolist()]
    np.testing.assert_array_equal(to_floats(result, target), exact)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_packed_conversion(kind):
    a, b = samples("f32", spread=20), samples("f32", seed=1, spread=20)
    body = f"cvt.rn.{kind}x2.f32 %d0, %a0, %a1;\ncvt.rn.relu.{kind}x2.f32 %d1, %a0, %a1;"
    pairs, rectified = run(body, [a, b], ["u4", "u4"])
    halves = to_floats(pairs.view(np.uint16), kind)
    for x, result in ((b, halves[::2]), (a, halves[1::2])):  # the second one goes low
        exact = [round_exactly(Fraction(float(v)), kind) for v in x.tolist()]
        np.testing.assert_array_equal(result, exact)
    np.testing.assert_array_equal(to_floats(rectified.view(np.uint16), kind), np.maximum(halves, 0))


def test_tf32():
    a = np.clip(samples("f32", spread=100), -(2.0**110), 2.0**110)
    body = "cvt.rna.tf32.f32 %d0, %a0;\ncvt.rn.tf32.f32 %d1, %a0;"
    away, even = run(body, [a], ["u4", "u4"])
    for result, ties_to_even in ((away, False), (even, True)):
        assert not (result & 0x1FFF).any()
        for x, y in zip(a.tolist(), result.view(np.float32).tolist(), strict=True):
            unit = Fraction(2) ** (math.frexp(x)[1] - 11) if x else Fraction(1)
            n, rest = divmod(abs(Fraction(x)), unit)
            up = rest * 2 > unit or (rest * 2 == unit and (n % 2 == 1 or not ties_to_even))
            assert abs(Fraction(y)) == (n + up) * unit


def test_saturation_and_flush():
    x = np.array([-1.0, 0.25, 3.0, np.nan, 1e-40], np.float32)
    body = """cvt.sat.f32.f32 %d0, %a0;
        cvt.ftz.f32.f32 %d1, %a0;
        cvt.rn.sat.f16.f32 %d2, %a0;"""
    clipped, flushed, half = run(body, [x], ["f4", "f4", "f2"])
    assert clipped.tolist() == [0, 0.25, 1, 0, np.float32(1e-40)]
    assert flushed.tolist()[4] == 0
    assert half.tolist() == [0, 0.25, 1, 0, 0]


def test_moves():
    a = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], np.uint64)
    body = """mov.b64 {%r1, %r2}, %a0;
        mov.b32 {%h1, %h2}, %r1;
        mov.b32 %d0, {%h2, %h1};
        mov.b64 {_, %d1}, %a0;
        mov.b64 %d2, {%r2, %r1};
        mov.b64 {%h3, %h4, %h5, %h6}, %a0;
        mov.b64 %d3, {%h6, %h5, %h4, %h3};
        mov.f32 %d4, 0fC0490FDB;
        mov.b32 %d5, %d4;
        mov.u32 %d6, -1;"""
    swapped, high, exchanged, reversed_, pi, bits, all_ones = run(
        body, [a], ["u4", "u4", "u8", "u8", "f4", "u4", "u4"]
    )
    assert [hex(x) for x in swapped.tolist()] == ["0xcdef89ab", "0x32107654"]
    assert [hex(x) for x in high.tolist()] == ["0x1234567", "0xfedcba98"]
    assert hex(exchanged[0]) == "0x89abcdef01234567"
    assert hex(reversed_[0]) == "0xcdef89ab45670123"
    assert pi[0] == np.float32(-np.pi)
    assert hex(bits[0]) == "0xc0490fdb"
    assert all_ones[0] == 0xFFFFFFFF


def test_address_spaces():
    n = np.arange(4, dtype=np.uint32)
    body = """mov.u64 %rd1, data;
        cvta.shared.u64 %rd2, %rd1;
        cvta.to.shared.u64 %rd3, %rd2;
        isspacep.shared %p1, %rd2;
        isspacep.global %p2, %rd2;
        isspacep.global %p3, %at_a0;
        selp.u32 %d0, 1, 0, %p1;
        selp.u32 %d1, 1, 0, %p2;
        selp.u32 %d2, 1, 0, %p3;
        sub.u64 %d3, %rd3, %rd1;"""
    shared, not_global, is_global, difference = run(
        body, [n], ["u4", "u4", "u4", "u8"], shared_bytes=64
    )
    assert shared.all()
    assert not not_global.any()
    assert is_global.all()
    assert not difference.any()


def test_special_registers():
    body = """mov.u32 %d0, %tid.x;
        mov.u32 %d1, %tid.y;
        mov.u32 %d2, %ctaid.x;
        mov.u32 %d3, %laneid;
        mov.u32 %d4, %lanemask_lt;
        mov.u32 %d5, %nctaid.x;
        mov.u64 %rd1, %clock64;
        mov.u64 %rd2, %globaltimer;
        setp.gt.u64 %p1, %rd2, %rd1;
        selp.u32 %d6, 1, 0, %p1;"""
    results = run(body, [np.zeros(120, np.uint32)], ["u4"] * 7, grid=3)
    n = np.arange(120)
    lane = n % 40 % 32
    for result, wanted in zip(
        results, (n % 40, 0 * n, n // 40, lane, (1 << lane) - 1), strict=False
    ):
        np.testing.assert_array_equal(result, wanted)
    assert (results[5] == 3).all()
    assert results[6].all()
