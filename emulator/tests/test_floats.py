"""Floating-point instructions against exact arithmetic, correctly rounded."""

import math
from fractions import Fraction

import numpy as np
import pytest

from emulator.tests.exact import FORMATS, round_exactly, samples, to_bits, to_floats
from emulator.tests.template import run

KINDS = ["f16", "bf16", "f32", "f64"]
EXACT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "fma": lambda a, b, c: a * b + c,
}


def wanted(function, kind, *arrays, mode="rn", flush=False):
    rows = zip(*(to_floats(a, kind).tolist() for a in arrays), strict=True)
    least = Fraction(2) ** FORMATS[kind][1]

    def of(x):
        x = Fraction(x)
        return Fraction(0) if flush and abs(x) < least else x

    floats = [round_exactly(function(*map(of, row)), kind, mode, flush) for row in rows]
    return to_floats(to_bits(floats, kind), kind)


def check(result, floats, kind, message=""):
    """Equal as numbers; the sign of zero is tested elsewhere."""
    np.testing.assert_array_equal(to_floats(result, kind), floats, err_msg=message)


def arguments(kind, n):
    """Operands, of all sizes and of like size, whose results do not overflow to NaN."""
    everything = [samples(kind, seed=seed) for seed in range(n)]
    close = [samples(kind, seed=10 + seed, spread=6) for seed in range(n)]
    return [np.concatenate(pair) for pair in zip(everything, close, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EXACT)
def test_arithmetic(name, kind):
    arrays = arguments(kind, 3 if name == "fma" else 2)
    sources = ", ".join(f"%a{k}" for k in range(len(arrays)))
    result = run(f"{name}.rn.{kind} %d0, {sources};", arrays, [arrays[0].dtype])
    floats = wanted(EXACT[name], kind, *arrays)
    if (kind, name) == ("f64", "fma"):  # exact where the product's low half is not subnormal
        sizes = [np.log2(np.maximum(np.abs(array), 5e-324)) for array in arrays]
        fine = (np.maximum(*sizes[:2]) < 960) & (np.abs(sizes[0] + sizes[1]) < 900)
        result, floats = result[fine], floats[fine]
        assert fine.sum() > 400
    check(result, floats, kind)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", EXACT)
def test_directed_rounding(name, mode):
    arrays = arguments("f32", 3 if name == "fma" else 2)
    sources = ", ".join(f"%a{k}" for k in range(len(arrays)))
    result = run(f"{name}.{mode}.f32 %d0, {sources};", arrays, ["f4"])
    check(result, wanted(EXACT[name], "f32", *arrays, mode=mode), "f32")


@pytest.mark.parametrize("name", EXACT)
def test_subnormals_are_flushed(name):
    arrays = [a * np.float32(2.0**-110) for a in arguments("f32", 3)]
    arrays[1] = arrays[1] if name in ("add", "sub") else samples("f32", arrays[0].size, 5, spread=6)
    arrays = arrays[: 3 if name == "fma" else 2]
    sources = ", ".join(f"%a{k}" for k in range(len(arrays)))
    body = f"{name}.ftz.f32 %d0, {sources};\n{name}.f32 %d1, {sources};"
    body = body.replace("fma", "fma.rn")
    flushed, kept = run(body, arrays, ["f4", "f4"])
    exact = wanted(EXACT[name], "f32", *arrays, flush=True)
    # a result that rounds up to the least normal number counts as subnormal on some machines
    edge = np.abs(exact) <= 2.0**-126
    check(flushed[~edge], exact[~edge], "f32")
    assert (np.abs(flushed[edge]) <= np.float32(2.0**-126)).all()
    assert (flushed != kept).any()
    fine = (np.abs(kept) > 2.0**-125) if name == "fma" else np.full(kept.shape, True)
    check(kept[fine], wanted(EXACT[name], "f32", *arrays)[fine], "f32")


def test_division_and_roots():
    a, b = arguments("f32", 2)
    b[b == 0] = 3
    result = run("div.rn.f32 %d0, %a0, %a1;", [a, b], ["f4"])
    check(result, wanted(lambda a, b: a / b, "f32", a, b), "f32")
    result = run("rcp.rn.f32 %d0, %a0;", [b], ["f4"])
    check(result, wanted(lambda b: 1 / b, "f32", b), "f32")
    b = np.abs(b)
    result = run("sqrt.rn.f32 %d0, %a0;", [b], ["f4"])
    check(result, np.sqrt(b.astype(np.float64)).astype(np.float32), "f32")
    a, b = arguments("f64", 2)
    b[np.abs(b) < 1e-300] = 3
    with np.errstate(over="ignore"):
        check(run("div.rn.f64 %d0, %a0, %a1;", [a, b], ["f8"]), a / b, "f64")
        check(run("sqrt.rn.f64 %d0, %a0;", [np.abs(b)], ["f8"]), np.sqrt(np.abs(b)), "f64")


@pytest.mark.parametrize(
    ("opcode", "function", "low", "high"),
    [
        ("ex2.approx.f32", np.exp2, -130, 127),
        ("lg2.approx.f32", np.log2, 1e-30, 1e30),
        ("sin.approx.f32", np.sin, -10, 10),
        ("cos.approx.f32", np.cos, -10, 10),
        ("tanh.approx.f32", np.tanh, -10, 10),
        ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), 1e-20, 1e20),
        ("rcp.approx.f32", lambda x: 1 / x, 1e-20, 1e20),
        ("sqrt.approx.f32", np.sqrt, 1e-20, 1e20),
        ("ex2.approx.ftz.f32", np.exp2, -120, 127),
    ],
)
def test_approximations_are_close(opcode, function, low, high):
    x = np.linspace(low, high, 999).astype(np.float32)
    exact = function(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(run(f"{opcode} %d0, %a0;", [x], ["f4"]), exact, 1.2e-7, 1e-45)


def test_half_functions():
    x = np.linspace(-4, 4, 500).astype(np.float16)
    result = run("ex2.approx.f16 %d0, %a0;", [x], ["f2"])
    np.testing.assert_array_equal(result, np.exp2(x.astype(np.float64)).astype(np.float16))
    pairs = x.view(np.uint32)
    result = run("tanh.approx.f16x2 %d0, %a0;", [pairs], ["u4"])
    np.testing.assert_array_equal(result.view(np.float16), np.tanh(x.astype("f8")).astype("f2"))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma", "min", "max", "neg", "abs"])
def test_pairs_are_two_halves(name, kind):
    n = {"fma": 3, "neg": 1, "abs": 1}.get(name, 2)
    arrays = [samples(kind, seed=seed) for seed in range(n)]
    sources = ", ".join(f"%a{k}" for k in range(n))
    suffix = ".rn" if name == "fma" else ""
    one = run(f"{name}{suffix}.{kind} %d0, {sources};", arrays, ["u2"])
    pairs = [array.view(np.uint32) for array in arrays]
    two = run(f"{name}{suffix}.{kind}x2 %d0, {sources};", pairs, ["u4"])
    np.testing.assert_array_equal(two.view(np.uint16), one)


def test_half_modifiers():
    a, b, c = (samples("f16", seed=seed, spread=4) for seed in range(3))
    exact = wanted(EXACT["fma"], "f16", a, b, c)
    result = run("fma.rn.relu.f16 %d0, %a0, %a1, %a2;", [a, b, c], ["u2"])
    check(result, np.maximum(exact, 0), "f16")
    result = run("fma.rn.sat.f16 %d0, %a0, %a1, %a2;", [a, b, c], ["u2"])
    check(result, np.clip(exact, 0, 1), "f16")
    a[5] = to_bits(math.nan, "f16")  # .relu keeps it
    result = run("fma.rn.relu.f16 %d0, %a0, %a1, %a2;", [a, b, c], ["u2"])
    assert np.isnan(to_floats(result, "f16")[5])
    tiny = np.arange(1, 2000, 2, dtype=np.uint16)
    one = np.full_like(tiny, 0x3C00)
    result = run("mul.ftz.f16 %d0, %a0, %a1;", [tiny, one], ["u2"])
    np.testing.assert_array_equal(result, np.where(tiny < 0x400, 0, tiny))


@pytest.mark.parametrize("kind", KINDS)
def test_extrema(kind):
    a, b = arguments(kind, 2)
    nan = to_bits([math.nan], kind)[0]
    a[::7] = nan
    b[::11] = nan
    x, y = to_floats(a, kind), to_floats(b, kind)
    for name, quiet, loud in (("min", np.fmin, np.minimum), ("max", np.fmax, np.maximum)):
        check(run(f"{name}.{kind} %d0, %a0, %a1;", [a, b], [a.dtype]), quiet(x, y), kind)
        if kind != "f64":
            result = run(f"{name}.NaN.{kind} %d0, %a0, %a1;", [a, b], [a.dtype])
            check(result, loud(x, y), kind)


@pytest.mark.parametrize(
    ("kind", "nan"), [*((k, "") for k in KINDS), *((k, ".NaN") for k in KINDS if k != "f64")]
)
def test_positive_zero_is_above_negative_zero(kind, nan):
    a = to_bits([0.0, -0.0, 0.0, -0.0, -0.0, math.nan], kind)
    b = to_bits([-0.0, 0.0, 0.0, -0.0, math.nan, -0.0], kind)
    low = run(f"min{nan}.{kind} %d0, %a0, %a1;", [a, b], [a.dtype])
    high = run(f"max{nan}.{kind} %d0, %a0, %a1;", [a, b], [a.dtype])
    assert np.signbit(to_floats(low, kind))[:4].tolist() == [True, True, False, True]
    assert np.signbit(to_floats(high, kind))[:4].tolist() == [False, False, False, True]
    if not nan:
        assert np.signbit(to_floats(low, kind))[4:].all()
        assert np.signbit(to_floats(high, kind))[4:].all()


def test_sign_saturation_and_properties():
    x = np.array([1.5, -2.0, np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 0.25], np.float32)
    y = x[::-1].copy()
    body = "neg.f32 %d0, %a0;\nabs.f32 %d1, %a0;\nadd.sat.f32 %d2, %a0, %a0;"
    negative, size, saturated = run(body, [x], ["f4"] * 3)
    np.testing.assert_array_equal(negative, -x)
    np.testing.assert_array_equal(size, np.abs(x))
    np.testing.assert_array_equal(saturated, np.nan_to_num(np.clip(2 * x, 0, 1)))
    # the sign comes from the first operand
    result = run("copysign.f32 %d0, %a0, %a1;", [x, y], ["f4"])
    np.testing.assert_array_equal(result, np.copysign(y, x))
    properties = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"]
    lines = [
        f"testp.{name}.f32 %p1, %a0;\nselp.u32 %d{k}, 1, 0, %p1;"
        for k, name in enumerate(properties)
    ]
    results = run("\n".join(lines), [x], ["u4"] * 6)
    finite, infinite, number, nan, normal, subnormal = (r.astype(bool) for r in results)
    np.testing.assert_array_equal(finite, np.isfinite(x))
    np.testing.assert_array_equal(infinite, np.isinf(x))
    np.testing.assert_array_equal(nan, np.isnan(x))
    np.testing.assert_array_equal(number, ~np.isnan(x))
    assert normal.tolist() == [True, True, *[False] * 3, True, True, False, True]
    assert subnormal.tolist() == [*[False] * 7, True, False]
