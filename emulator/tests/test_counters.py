"""Counters against counts worked out by hand."""

import numpy as np
import pytest

from emulator.ptx import Counters
from emulator.tests.template import run

A = np.arange(128, dtype=np.uint32)


def count(body, n=32, grid=1, outputs=(), **options):
    options = {"shared_bytes": 4096, "initcheck": False, **options}
    _, counters = run(body, [A[:n]], [*outputs, "u4"], grid=grid, counts=True, **options)
    return counters


def test_instructions_per_warp():
    body = """mov.u32 %d0, 0;
        setp.lt.u32 %p1, %t, 40;
        @!%p1 bra done;
        popc.b32 %d0, %a0;
        done:
        setp.lt.u32 %p2, %t, 5;
        @%p2 clz.b32 %d0, %a0;
        @%p2 st.shared.u32 [data], %d0;"""
    counts = count(body, n=128, grid=2).instructions
    assert counts["popc.b32"] == 4  # both warps of a block of 64 have lanes below 40
    assert counts["clz.b32"] == 4  # issued under a predicate by all
    assert counts["st.shared.u32"] == 2  # branched around where no lane executes it
    assert counts["bra"] == 4
    assert counts["ret"] == 4
    assert counts["ld.global.u32"] == 4
    diverged = body.replace("40", "16").replace("popc", "brev")
    assert count(diverged, n=128, grid=2).instructions["brev.b32"] == 2


def test_loop_iterations():
    body = """mov.u32 %d0, 0;
        again:
        add.u32 %d0, %d0, 1;
        setp.lt.u32 %p1, %d0, 10;
        @%p1 bra again;"""
    counters = count(body, n=128)
    assert counters.instructions["add.u32"] == 40
    assert counters.n_instructions == sum(counters.instructions.values())


@pytest.mark.parametrize(
    ("stride", "sectors"),
    [(4, 4), (8, 8), (32, 32), (0, 1), (16, 16)],
)
def test_load_sectors(stride, sectors):
    """32 lanes of 4 bytes: 128 bytes are 4 sectors; spread out, one each."""
    body = f"""ld.param.u64 %rd1, [a0];
        mad.wide.u32 %rd1, %t, {stride}, %rd1;
        ld.global.u32 %d0, [%rd1];"""
    _, counters = run(body, [np.zeros(1024, "u4")], ["u4"], block=32, grid=32, counts=True)
    wanted = {line: c["global_load_sectors"] for (_, _, line), c in counters.lines.items()}
    assert wanted["ld.global.u32 %d0, [%rd1];"] == 32 * sectors


def test_vectors_misalignment_and_partial_warps():
    body = """and.b32 %r1, %t, 7;
        mul.wide.u32 %rd1, %t, 4;
        sub.u64 %rd1, %at_a0, %rd1;
        mad.wide.u32 %rd2, %r1, 16, %rd1;
        ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2];
        mov.u32 %d0, %r1;
        setp.lt.u32 %p1, %t, 9;
        @%p1 ld.global.u32 %d0, [%at_a0+4];"""
    by_text = {line: c for (_, _, line), c in count(body, n=32).lines.items()}
    assert by_text["ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2];"]["global_load_sectors"] == 4
    assert by_text["@%p1 ld.global.u32 %d0, [%at_a0+4];"] == {
        "requests": 1,
        "global_load_sectors": 2,  # 36 bytes from byte 4
    }


def test_stores_and_atomics_are_apart():
    body = """mov.u32 %d0, 1;
        st.global.u32 [%at_d0], %d0;
        red.global.add.u32 [%at_d0], 1;
        atom.global.add.u32 %d0, [%at_a0], 1;
        st.shared.u32 [data], 0;
        red.shared.add.u32 [data], 1;"""
    counters = count(body, n=64)
    assert counters.global_load_sectors == 8  # the input
    assert counters.global_store_sectors == 16  # that in the body, and the result
    assert counters.global_atomic_sectors == 16
    assert counters.global_atomic_lanes == 128
    assert counters.shared_atomic_lanes == 64


@pytest.mark.parametrize(
    ("opcode", "stride", "wavefronts", "conflicts"),
    [
        ("st.shared.u32 [%r1], %a0;", 4, 1, 0),
        ("st.shared.u32 [%r1], %a0;", 8, 2, 1),
        ("st.shared.u32 [%r1], %a0;", 128, 32, 31),
        ("st.shared.u32 [%r1], %a0;", 132, 1, 0),
        ("st.shared.u32 [%r1], %a0;", 0, 1, 0),  # all lanes one word
        ("st.shared.u16 [%r1], %h1;", 2, 1, 0),  # two lanes in a word
        ("st.shared.v2.u32 [%r1], {%a0, %a0};", 8, 2, 0),
        ("st.shared.v4.u32 [%r1], {%a0, %a0, %a0, %a0};", 16, 4, 0),
        ("st.shared.v4.u32 [%r1], {%a0, %a0, %a0, %a0};", 128, 32, 28),
    ],
)
def test_bank_conflicts(opcode, stride, wavefronts, conflicts):
    body = f"""mov.u32 %r1, data;
        mad.lo.u32 %r1, %t, {stride}, %r1;
        mov.u32 %d0, 0;
        {opcode}"""
    counters = count(body, shared_bytes=8192)
    assert (counters.shared_wavefronts, counters.shared_conflicts) == (wavefronts, conflicts)


def test_matrix_rows():
    """Rows of 64 bytes: eight of them start in two groups of four banks, four rows in each."""
    body = """mov.u32 %r1, data;
        mad.lo.u32 %r1, %t, {stride}, %r1;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r2, %r3, %r4, %d0}}, [%r1];"""
    counters = count(body.format(stride=64))
    assert (counters.shared_wavefronts, counters.shared_conflicts) == (16, 12)
    counters = count(body.format(stride=80))
    assert (counters.shared_wavefronts, counters.shared_conflicts) == (4, 0)


def test_mma_and_barriers():
    body = """mov.u32 %d0, 0;
        mov.f32 %f1, 0f00000000;
        mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f1,%f1,%f1}, {%d0,%d0}, {%d0},
            {%f1,%f1,%f1,%f1};
        bar.sync 0;
        bar.sync 0;"""
    counters = count(body, n=128, grid=2)
    assert counters.mma == 4
    assert counters.barriers == 4


def test_counters_add_up():
    body = "mov.u32 %d0, 0;\nst.shared.u32 [data], 0;"
    one, two = count(body), count(body, n=64)
    both = one + two
    assert both.launches == 2
    assert both.global_store_sectors == 4 + 8
    assert both.instructions["ret"] == 3
    assert sum(c["shared_wavefronts"] for c in both.lines.values()) == 3
    assert one.launches == 1
    assert sum([one, two], Counters()).shared_wavefronts == 3
