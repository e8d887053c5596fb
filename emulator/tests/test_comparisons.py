"""setp, set, selp, slct."""

import math
import operator

import numpy as np
import pytest

from emulator.tests.exact import samples, to_bits, to_floats
from emulator.tests.template import run

COMPARE = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def operands(kind):
    if kind[0] in "us":
        rng = np.random.default_rng(0)
        dtype = f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}"
        limits = np.iinfo(dtype)
        a, b = rng.integers(limits.min, limits.max, (2, 300), dtype, endpoint=True)
        b[::3] = a[::3]
        return a, b
    a, b = samples(kind, seed=1), samples(kind, seed=2)
    b[::3] = a[::3]
    a[::5] = b[::7] = to_bits(math.nan, kind)
    return a, b


def compare(name, kind, a, b):
    """Compare by the ISA's rule: ordered comparisons are false on NaN, the others true."""
    if kind[0] in "us":
        return COMPARE[name](a, b)
    x, y = to_floats(a, kind), to_floats(b, kind)
    unordered = np.isnan(x) | np.isnan(y)
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    if name in COMPARE:
        return COMPARE[name](x, y) & ~unordered
    return COMPARE[name[:-1]](x, y) | unordered


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_integers(kind):
    a, b = operands(kind)
    for name in COMPARE:
        body = f"setp.{name}.{kind} %p1, %a0, %a1;\nselp.u32 %d0, 1, 0, %p1;"
        np.testing.assert_array_equal(run(body, [a, b], ["u4"]), compare(name, kind, a, b))
    if kind[0] == "u":
        for unsigned, name in {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.items():
            body = f"setp.{unsigned}.{kind} %p1, %a0, %a1;\nselp.u32 %d0, 1, 0, %p1;"
            np.testing.assert_array_equal(run(body, [a, b], ["u4"]), compare(name, kind, a, b))


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_floats(kind):
    a, b = operands(kind)
    for name in [*COMPARE, *(f"{name}u" for name in COMPARE), "num", "nan"]:
        body = f"setp.{name}.{kind} %p1, %a0, %a1;\nselp.u32 %d0, 1, 0, %p1;"
        result = run(body, [a, b], ["u4"])
        np.testing.assert_array_equal(result, compare(name, kind, a, b), err_msg=name)


def test_flushed_operands_compare_equal():
    a, b = np.array([1e-40, -1e-40], "f4"), np.zeros(2, "f4")
    body = """setp.gt.f32 %p1, %a0, %a1;
        selp.u32 %d0, 1, 0, %p1;
        setp.eq.ftz.f32 %p2, %a0, %a1;
        selp.u32 %d1, 1, 0, %p2;"""
    kept, flushed = run(body, [a, b], ["u4", "u4"])
    assert kept.tolist() == [1, 0]
    assert flushed.tolist() == [1, 1]


@pytest.mark.parametrize("join", ["and", "or", "xor"])
def test_boolean_operator_and_second_predicate(join):
    a, b = operands("s32")
    c = np.arange(300, dtype=np.int32) % 2
    body = f"""setp.eq.s32 %p3, %a2, 1;
        setp.lt.{join}.s32 %p1|%p2, %a0, %a1, %p3;
        selp.u32 %d0, 1, 0, %p1;
        selp.u32 %d1, 1, 0, %p2;
        setp.lt.{join}.s32 %p4, %a0, %a1, !%p3;
        selp.u32 %d2, 1, 0, %p4;"""
    first, second, negated = run(body, [a, b, c], ["u4"] * 3)
    function = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[join]
    np.testing.assert_array_equal(first, function(a < b, c == 1))
    np.testing.assert_array_equal(second, function(~(a < b), c == 1))
    np.testing.assert_array_equal(negated, function(a < b, c == 0))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_pairs(kind):
    a, b = operands(kind)
    less = compare("lt", kind, a, b)
    pairs = [a.view(np.uint32), b.view(np.uint32)]
    body = f"""setp.lt.{kind}x2 %p1|%p2, %a0, %a1;
        selp.u32 %d0, 1, 0, %p1;
        selp.u32 %d1, 1, 0, %p2;
        set.lt.{kind}x2.{kind}x2 %d2, %a0, %a1;
        set.ltu.u32.{kind}x2 %d3, %a0, %a1;"""
    low, high, ones, masks = run(body, pairs, ["u4"] * 4)
    np.testing.assert_array_equal(low, less[::2])
    np.testing.assert_array_equal(high, less[1::2])
    np.testing.assert_array_equal(to_floats(ones.view(np.uint16), kind), less)
    unordered = compare("ltu", kind, a, b)
    np.testing.assert_array_equal(masks.view(np.uint16), np.where(unordered, 0xFFFF, 0))


def test_set():
    a, b = operands("s32")
    x, y = operands("f32")
    body = """set.lt.u32.s32 %d0, %a0, %a1;
        set.lt.f32.s32 %d1, %a0, %a1;
        set.geu.u32.f32 %d2, %a2, %a3;
        setp.gt.s32 %p1, %a0, 0;
        set.lt.and.u32.s32 %d3, %a0, %a1, %p1;"""
    x, y = x[:300], y[:300]
    mask, one, floats, joined = run(body, [a, b, x, y], ["u4", "f4", "u4", "u4"])
    np.testing.assert_array_equal(mask, np.where(a < b, 0xFFFFFFFF, 0))
    np.testing.assert_array_equal(one, a < b)
    np.testing.assert_array_equal(floats, np.where(compare("geu", "f32", x, y), 0xFFFFFFFF, 0))
    np.testing.assert_array_equal(joined, np.where((a < b) & (a > 0), 0xFFFFFFFF, 0))


def test_select():
    a, b = operands("s32")
    c = samples("f32")[:300]
    body = """slct.s32.s32 %d0, %a0, %a1, %a0;
        slct.f32.f32 %d1, %a2, 0f40000000, %a2;
        setp.gt.s32 %p1, %a0, %a1;
        selp.f32 %d2, %a2, 0f00000000, %p1;
        mov.pred %p2, %p1;
        not.pred %p3, %p2;
        xor.pred %p4, %p3, %p1;
        selp.b64 %d3, 7, -7, %p3;
        selp.u32 %d4, 1, 0, %p4;"""
    dtypes = ["i4", "f4", "f4", "i8", "u4"]
    by_sign, floats, by_predicate, wide, always = run(body, [a, b, c], dtypes)
    np.testing.assert_array_equal(by_sign, np.where(a >= 0, a, b))
    np.testing.assert_array_equal(floats, np.where(c >= 0, c, 2))
    np.testing.assert_array_equal(by_predicate, np.where(a > b, c, 0))
    np.testing.assert_array_equal(wide, np.where(a > b, -7, 7))
    assert always.all()
