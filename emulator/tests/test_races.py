"""The race detector: what it reports, and what it must let pass."""

import numpy as np
import pytest

from emulator.ptx.errors import Race
from emulator.tests.template import line_of, run

A = np.arange(64, dtype=np.uint32)
START = (
    "mov.u32 %r1, data;\nmad.lo.u32 %r2, %t, 4, %r1;\nxor.b32 %r3, %r2, {swap};\nmov.u32 %d0, 0;"
)
SHARED_RACES = {
    "a store, then a load": ("st.shared.u32 [%r2], %a0;", "ld.shared.u32 %d0, [%r3];"),
    "a load, then a store": ("ld.shared.u32 %d0, [%r2];", "st.shared.u32 [%r3], %a0;"),
    "two stores": ("st.shared.u32 [%r2], %a0;", "st.shared.u32 [%r3], %a0;"),
    "a store, then an atomic": ("st.shared.u32 [%r2], 0;", "red.shared.add.u32 [%r3], 1;"),
    "an atomic, then a load": ("red.shared.add.u32 [%r2], 1;", "ld.shared.u32 %d0, [%r3];"),
    "an atomic, then a store": ("red.shared.add.u32 [%r2], 1;", "st.shared.u32 [%r3], 0;"),
    "a load by all": ("ld.shared.u32 %d0, [data+8];", "st.shared.u32 [%r3], %a0;"),
    "a copy": (
        "cp.async.ca.shared.global [%r2], [%at_a0], 4;\ncp.async.wait_all;",
        "ld.shared.u32 %d0, [%r3];",
    ),
}


def shared(*parts, swap=4, **options):
    body = "\n".join([START.format(swap=swap), *parts])
    options = {"shared_bytes": 256, "racecheck": "shared", "initcheck": False, **options}
    return body, lambda: run(body, [A], ["u4"], **options)


@pytest.mark.parametrize("name", SHARED_RACES)
@pytest.mark.parametrize("swap", [4, 128])  # within a warp, and between warps
def test_races_in_shared_memory(name, swap):
    first, second = SHARED_RACES[name]
    body, launch = shared(first, second, swap=swap)
    with pytest.raises(Race, match="with nothing to order them") as error:
        launch()
    assert error.value.text == second
    last = line_of(body, ["u4"], ["u4"], body.count("\n"), shared_bytes=256)
    assert error.value.line == last
    earlier = f"at line {last - 1 - first.count(chr(10))}"
    assert earlier in str(error.value)
    assert "block (0,0,0) thread" in str(error.value)


@pytest.mark.parametrize("name", SHARED_RACES)
def test_a_barrier_orders(name):
    for barrier, swap in (("bar.sync 0;", 128), ("bar.sync 0;", 4), ("bar.warp.sync -1;", 4)):
        first, second = SHARED_RACES[name]
        if name == "a load by all" and "warp" in barrier:
            continue
        shared(first, barrier, second, swap=swap)[1]()


@pytest.mark.parametrize("name", SHARED_RACES)
def test_a_warp_barrier_does_not_order_warps(name):
    first, second = SHARED_RACES[name]
    with pytest.raises(Race):
        shared(first, "bar.warp.sync -1;", second, swap=128)[1]()


def test_many_readers_are_remembered():
    """A read by one warp, then by another, then a store by the first after its own barrier."""
    parts = [
        "ld.shared.u32 %d0, [data];",
        "setp.ge.u32 %p1, %t, 32;",
        "bar.warp.sync -1;",
        "@%p1 exit;",
        "st.shared.u32 [data], 1;",
    ]
    with pytest.raises(Race, match="load by several threads"):
        shared(*parts)[1]()


def test_own_accesses_and_equal_values_do_not_race():
    shared("st.shared.u32 [%r2], 5;", "ld.shared.u32 %d0, [%r2];", "st.shared.u32 [%r2], 6;")[1]()
    shared("st.shared.u32 [data], 5;")[1]()
    with pytest.raises(Race, match="store by block"):
        shared("st.shared.u32 [data], %a0;")[1]()


def test_neighbours_in_a_word_do_not_race():
    parts = ["mad.lo.u32 %r4, %t, 2, %r1;", "cvt.u16.u32 %h1, %a0;", "st.shared.u16 [%r4], %h1;"]
    shared(*parts)[1]()


def test_atomics_do_not_race_with_each_other():
    shared("red.shared.add.u32 [data], 1;", "atom.shared.max.u32 %d0, [data], 7;")[1]()


def test_matrix_loads_are_seen():
    store = "mad.lo.u32 %r5, %t, 16, %r1;\nst.shared.v4.b32 [%r5], {%a0, %a0, %a0, %a0};"
    load = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6, %r7, %r8, %d0}, [%r5];"
    shared(store, "bar.warp.sync -1;", load, shared_bytes=1024)[1]()
    _, launch = shared(store, "xor.b32 %r5, %r5, 16;", load, shared_bytes=1024)
    with pytest.raises(Race):
        launch()


GLOBAL = """shl.b32 %r1, %t, 2;
    cvt.u64.u32 %rd1, %r1;
    mov.u64 %rd2, cells;
    mov.u32 %d0, 0;"""


def launch_global(*parts, grid=2, **options):
    run("\n".join([GLOBAL, *parts]), [A], ["u4"], grid=grid, racecheck="global", **options)


@pytest.mark.parametrize("resident_lanes", [32, 1024])
def test_races_in_global_memory(resident_lanes):
    add = ["ld.global.u32 %r2, [%rd2];", "add.u32 %r2, %r2, 1;", "st.global.u32 [%rd2], %r2;"]
    with pytest.raises(Race, match=r"store by block .* global address 0x") as error:
        launch_global(*add, resident_lanes=resident_lanes)
    assert error.value.text == "st.global.u32 [%rd2], %r2;"
    launch_global("red.global.add.u32 [%rd2], 1;", resident_lanes=resident_lanes)


def test_blocks_are_not_ordered_by_barriers():
    parts = ["setp.eq.u32 %p1, %t, 0;", "add.u32 %r3, %i, 100;", "@%p1 st.global.u32 [%rd2], %r3;"]
    parts += ["bar.sync 0;", "ld.global.u32 %d0, [%rd2];"]
    launch_global(*parts, grid=1)
    with pytest.raises(Race):
        launch_global(*parts)


def test_storing_what_is_there_does_not_race():
    launch_global("st.global.u32 [%rd2+4], 1;")


def test_races_are_not_looked_for_unless_asked():
    first, second = SHARED_RACES["a store, then a load"]
    shared(first, second, racecheck=None)[1]()
    with pytest.raises(ValueError, match="racecheck='all'"):
        shared(first, racecheck="all")[1]()
