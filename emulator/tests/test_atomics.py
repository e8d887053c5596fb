"""Atomics and reductions, with many lanes on few places."""

import numpy as np
import pytest

from emulator.ptx import EmulatedMemory, Module
from emulator.tests.template import kernel, run

N_LANES, N_PLACES = 200, 7
RNG = np.random.default_rng(0)
PLACE = RNG.integers(0, N_PLACES, N_LANES).astype(np.uint32)
INTEGER = {
    "add": lambda old, v: old + v,
    "min": min,
    "max": max,
    "and": lambda old, v: old & v,
    "or": lambda old, v: old | v,
    "xor": lambda old, v: old ^ v,
    "exch": lambda old, v: v,
    "inc": lambda old, v: 0 if old >= v else old + 1,
    "dec": lambda old, v: v if old == 0 or old > v else old - 1,
}


def launch(body, start, values, n_bytes=None):
    """Run `body` with a table at %rd1, the lane's place in it at %rd2; returns (table, %d0)."""
    memory = EmulatedMemory(1 << 24)
    n_bytes = n_bytes or start.dtype.itemsize
    body = f"""ld.param.u64 %rd1, [d1];
        mad.wide.u32 %rd2, %a0, {n_bytes}, %rd1;
        {body}"""
    text = kernel(body, ["u4", values.dtype], [values.dtype, "u8"])
    text = text.replace("  st.global.u64 [%at_d1], %d1;\n", "")
    arrays = [PLACE, values, np.zeros_like(values), start]
    addresses = []
    for array in arrays:
        addresses.append(memory.allocate(array.nbytes))
        memory.view(addresses[-1], array.dtype, array.shape)[...] = array
    Module(text, memory).launch("test", 2, N_LANES // 2, addresses, resident_lanes=128)
    table = memory.view(addresses[3], start.dtype, start.shape).copy()
    return table, memory.view(addresses[2], values.dtype, values.shape).copy()


def in_order(function, start, values):
    """Table and return values of atomics in lane order."""
    table, old = start.tolist(), []
    for place, value in zip(PLACE.tolist(), values.tolist(), strict=True):
        old.append(table[place])
        table[place] = function(table[place], value)
    return table, old


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (o, k)
        for o in INTEGER
        for k in ("u32", "s32", "u64")
        if o not in ("inc", "dec") or k == "u32"
    ],
)
def test_integers(operation, kind):
    bits = kind.replace("s", "b").replace("u", "b")
    name = bits if operation in ("and", "or", "xor", "exch") else kind
    dtype = np.dtype({"u32": "u4", "s32": "i4", "u64": "u8"}[kind])
    values = RNG.integers(0, 50, N_LANES).astype(dtype)
    values = values - 25 if kind == "s32" else values
    start = RNG.integers(0, 50, N_PLACES).astype(dtype)
    wanted, old = in_order(INTEGER[operation], start, values)
    table, returned = launch(f"atom.global.{operation}.{name} %d0, [%rd2], %a1;", start, values)
    assert table.tolist() == wanted
    assert returned.tolist() == old
    if operation != "exch":
        table, _ = launch(f"red.global.{operation}.{name} [%rd2], %a1;", start, values)
        assert table.tolist() == wanted


def test_compare_and_swap():
    start = np.zeros(N_PLACES, np.uint32)
    values = np.arange(1, N_LANES + 1, dtype=np.uint32)
    body = "atom.global.cas.b32 %d0, [%rd2], 0, %a1;"
    wanted, old = in_order(lambda old, v: v if old == 0 else old, start, values)
    table, returned = launch(body, start, values)
    assert table.tolist() == wanted
    assert returned.tolist() == old


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("opcode", ["atom", "red"])
def test_floats(kind, opcode):
    dtype = np.dtype({"f32": "f4", "f64": "f8"}[kind])
    values = RNG.normal(size=N_LANES).astype(dtype)
    start = np.zeros(N_PLACES, dtype)
    body = {
        "atom": f"atom.global.add.{kind} %d0, [%rd2], %a1;",
        "red": f"red.global.add.{kind} [%rd2], %a1;",
    }[opcode]
    table, returned = launch(body, start, values)
    wanted, old = in_order(lambda old, v: dtype.type(old) + dtype.type(v), start, values)
    np.testing.assert_array_equal(table, np.array(wanted, dtype))
    if opcode == "atom":
        np.testing.assert_array_equal(returned, np.array(old, dtype))


def half_sum(kind):
    def add(a, b):
        if kind == "f16":
            return a + b
        x, y = ((np.uint32(v) << np.uint32(16)).view(np.float32) for v in (a, b))
        bits = int((x + y).view(np.uint32))
        return np.uint16(bits + 0x7FFF + (bits >> 16 & 1) >> 16)

    return add


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("n_pairs", [1, 2, 4])
def test_packed_halves_and_vectors(kind, n_pairs):
    def halves(*shape):
        if kind == "f16":
            return RNG.normal(size=shape).astype(np.float16)
        return (RNG.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)

    start, values = halves(N_PLACES, 2 * n_pairs), halves(N_LANES, 2)
    wanted = start.copy()
    add = half_sum(kind)
    for place, pair in zip(PLACE, values, strict=True):
        for k in range(2 * n_pairs):
            wanted[place, k] = add(wanted[place, k], pair[k % 2])
    if n_pairs == 1:
        body = f"red.global.add.noftz.{kind}x2 [%rd2], %a1;"
    else:
        vector = ", ".join(["%a1"] * n_pairs)
        body = f"red.global.add.noftz.v{n_pairs}.{kind}x2 [%rd2], {{{vector}}};"
    table, _ = launch(body, start, values.view(np.uint32)[:, 0].copy(), 4 * n_pairs)
    np.testing.assert_array_equal(table.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("n", [2, 4])
def test_float_vectors(n):
    start = RNG.normal(size=(N_PLACES, n)).astype(np.float32)
    values = RNG.normal(size=N_LANES).astype(np.float32)
    vector = ", ".join(["%a1"] * n)
    table, _ = launch(f"red.global.add.v{n}.f32 [%rd2], {{{vector}}};", start, values, 4 * n)
    wanted = start.copy()
    for place, value in zip(PLACE, values, strict=True):
        wanted[place] += value
    np.testing.assert_array_equal(table, wanted)


def test_vector_with_a_result():
    start = np.zeros((N_PLACES, 2), np.float32)
    values = np.arange(N_LANES, dtype=np.float32)
    body = "atom.global.add.v2.f32 {%d0, %f1}, [%rd2], {%a1, %a1};"
    table, returned = launch(body, start, values, 8)
    sums, old = in_order(lambda old, v: old + v, start[:, 0], values)
    assert table[:, 0].tolist() == table[:, 1].tolist() == sums
    assert returned.tolist() == old


def test_shared_atomics():
    body = """setp.lt.u32 %p1, %t, 4;
        mov.u32 %r1, data;
        mad.lo.u32 %r2, %t, 4, %r1;
        @%p1 st.shared.u32 [%r2], 0;
        bar.sync 0;
        and.b32 %r3, %a0, 3;
        mad.lo.u32 %r3, %r3, 4, %r1;
        atom.shared.add.u32 %d0, [%r3], 1;
        bar.sync 0;
        ld.shared.u32 %d1, [%r3];"""
    a = RNG.integers(0, 4, 128).astype(np.uint32)
    before, total = run(body, [a], ["u4", "u4"], grid=2, shared_bytes=16)
    for block in (slice(0, 64), slice(64, 128)):
        counts = np.bincount(a[block], minlength=4)
        np.testing.assert_array_equal(total[block], counts[a[block]])
        wanted = [np.count_nonzero(a[block][:k] == x) for k, x in enumerate(a[block])]
        np.testing.assert_array_equal(before[block], wanted)


def test_subnormal_sums_are_flushed_in_global_memory_only():
    tiny = np.full(N_LANES, 1e-41, np.float32)
    table, _ = launch("red.global.add.f32 [%rd2], %a1;", np.zeros(N_PLACES, np.float32), tiny)
    assert not table.any()
    body = """st.shared.f32 [data], 0f00000000;
        bar.sync 0;
        red.shared.add.f32 [data], %a0;
        bar.sync 0;
        ld.shared.f32 %d0, [data];"""
    assert run(body, [tiny[:32]], ["f4"], shared_bytes=4).all()


def test_a_drawn_order():
    """Blocks and lanes take turns as they are drawn: sums of integers stay, what was there not."""
    memory, values = EmulatedMemory(1 << 20), np.arange(N_LANES, dtype=np.uint32)
    text = kernel(
        "ld.param.u64 %rd1, [d1]; atom.global.add.u32 %d0, [%rd1], %a0;", ["u4"], ["u4", "u8"]
    )
    text = text.replace("  st.global.u64 [%at_d1], %d1;\n", "")
    found = []
    for seed in (0, 1):
        addresses = [memory.allocate(array.nbytes) for array in (values, values, values[:1])]
        memory.view(addresses[0], "uint32", N_LANES)[:] = values
        memory.view(addresses[2], "uint32", 1)[:] = 0
        order = np.random.default_rng(seed)
        Module(text, memory).launch("test", 4, N_LANES // 4, addresses, order=order)
        assert memory.view(addresses[2], "uint32", 1)[0] == values.sum()
        before = memory.view(addresses[1], "uint32", N_LANES).copy()
        found.append(before)
        turn = np.argsort(before, kind="stable")  # lane 0 adds nothing
        sums = np.cumsum(values[turn])
        assert np.array_equal(before[turn], sums - values[turn])
    assert not np.array_equal(*found)
