"""Shuffles, votes, matches, reductions and warp barriers, and what they refuse."""

import numpy as np
import pytest

from emulator.ptx.errors import DivergentCollective
from emulator.tests.template import line_of, run

RNG = np.random.default_rng(0)
A = RNG.integers(0, 1000, 96).astype(np.uint32)
LANE = np.arange(96) % 32
WARP = np.arange(96) // 32


def by_lane(function):
    """`function(values, lane)` for each lane of the warps of A."""
    return np.array(
        [function(A[32 * w :][:32].tolist(), lane) for w, lane in zip(WARP, LANE, strict=True)]
    )


@pytest.mark.parametrize("width", [32, 16, 8])
@pytest.mark.parametrize("b", [0, 1, 4, 9, 31])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle(mode, b, width):
    """The table of `shfl` in the ISA, as __shfl_*_sync with a width uses it."""
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    body = f"shfl.sync.{mode}.b32 %d0|%p1, %a0, {b}, {clamp}, -1;\nselp.u32 %d1, 1, 0, %p1;"

    def source(lane):
        segment = lane // width * width
        j = {
            "up": lane - b,
            "down": lane + b,
            "bfly": lane ^ b,
            "idx": segment + b % width,
        }[mode]
        inside = j >= segment if mode == "up" else j <= segment + width - 1
        return (j, True) if inside else (lane, False)

    result, inside = run(body, [A], ["u4", "u4"])
    np.testing.assert_array_equal(result, by_lane(lambda v, lane: v[source(lane)[0]]))
    np.testing.assert_array_equal(inside, by_lane(lambda v, lane: source(lane)[1]))


def test_shuffle_by_a_register():
    body = "xor.b32 %r1, %a0, %t;\nand.b32 %r1, %r1, 31;\nshfl.sync.idx.b32 %d0, %a0, %r1, 31, -1;"
    wanted = by_lane(lambda v, lane: v[(v[lane] ^ lane) % 32])
    np.testing.assert_array_equal(run(body, [A], ["u4"]), wanted)


def test_sum_by_shuffles():
    steps = [
        f"shfl.sync.bfly.b32 %r1, %d0, {k}, 31, -1;\nadd.u32 %d0, %d0, %r1;"
        for k in (16, 8, 4, 2, 1)
    ]
    result = run("\n".join(["mov.u32 %d0, %a0;", *steps]), [A], ["u4"])
    np.testing.assert_array_equal(result, by_lane(lambda v, lane: sum(v)))


def test_votes():
    body = """setp.gt.u32 %p1, %a0, 500;
        vote.sync.ballot.b32 %d0, %p1, -1;
        vote.sync.any.pred %p2, %p1, -1;
        selp.u32 %d1, 1, 0, %p2;
        setp.lt.u32 %p3, %a0, 1000;
        vote.sync.all.pred %p4, %p3, -1;
        selp.u32 %d2, 1, 0, %p4;
        vote.sync.uni.pred %p5, !%p3, -1;
        selp.u32 %d3, 1, 0, %p5;
        vote.sync.all.pred %p6, %p1, -1;
        selp.u32 %d4, 1, 0, %p6;"""
    ballot, any_, all_, uniform, not_all = run(body, [A], ["u4"] * 5)
    wanted = by_lane(lambda v, lane: sum((x > 500) << k for k, x in enumerate(v)))
    np.testing.assert_array_equal(ballot, wanted)
    assert any_.all()
    assert all_.all()
    assert uniform.all()
    assert not not_all.any()


@pytest.mark.parametrize("bits", [32, 64])
def test_match(bits):
    a = (A % 5).astype(f"u{bits // 8}")
    a[:32] = 3
    body = f"""match.any.sync.b{bits} %d0, %a0, -1;
        match.all.sync.b{bits} %d1|%p1, %a0, -1;
        selp.u32 %d2, 1, 0, %p1;"""
    any_, all_, same = run(body, [a], ["u4"] * 3)
    for lane in range(96):
        warp = a[lane // 32 * 32 :][:32]
        equal = sum(int(x == a[lane]) << k for k, x in enumerate(warp))
        assert any_[lane] == equal
        assert all_[lane] == (equal if equal == 0xFFFFFFFF else 0)
        assert same[lane] == (equal == 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("operation", "function"),
    [("add", sum), ("min", min), ("max", max), ("or", lambda v: int(np.bitwise_or.reduce(v)))],
)
def test_reduce(operation, function):
    kind = "b32" if operation == "or" else "u32"
    result = run(f"redux.sync.{operation}.{kind} %d0, %a0, -1;", [A], ["u4"])
    np.testing.assert_array_equal(result, by_lane(lambda v, lane: function(v)))


def test_part_of_a_warp():
    body = """setp.lt.u32 %p1, %t, 16;
        mov.u32 %d0, 0;
        mov.u32 %d1, 0;
        mov.u32 %d2, 0;
        @!%p1 bra after;
        activemask.b32 %d0;
        shfl.sync.bfly.b32 %d1, %a0, 3, 31, 0xFFFF;
        redux.sync.add.u32 %d2, %a0, 0xFFFF;
        bar.warp.sync 0xFFFF;
        after:"""
    active, shuffled, total = run(body, [A[:32]], ["u4"] * 3)
    assert active.tolist() == [0xFFFF] * 16 + [0] * 16
    assert shuffled[:16].tolist() == [A[k ^ 3] for k in range(16)]
    assert total[:16].tolist() == [A[:16].sum()] * 16


def test_a_partial_last_warp():
    result = run("activemask.b32 %d0;\nshfl.sync.bfly.b32 %r1, %a0, 1, 31, -1;", [A[:40]], ["u4"])
    assert result.tolist() == [0xFFFFFFFF] * 32 + [0xFF] * 8


DIVERGED = """setp.lt.u32 %p1, %t, 16;
    mov.u32 %d0, 0;
    mov.u32 %r1, 0xFFFF;
    @%p1 mov.u32 %r1, 0xFF;
    @%p1 bra after;
    {instruction}
    after:"""


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("shfl.sync.bfly.b32 %d0, %a0, 1, 31, -1;", "missing in block (0,0,0) warp 0"),
        ("vote.sync.ballot.b32 %d0, %p1, -1;", "mask 0xffffffff, lanes here 0xffff0000"),
        ("match.any.sync.b32 %d0, %a0, -1;", "missing"),
        ("redux.sync.add.u32 %d0, %a0, -1;", "missing"),
        ("bar.warp.sync -1;", "missing"),
        ("bar.warp.sync 0xFFFE0000;", "lane 16 of block (0,0,0) warp 0 is not in its own mask"),
        (
            "shfl.sync.bfly.b32 %d0, %a0, 16, 31, 0xFFFF0000;",
            "lane 16 of block (0,0,0) warp 0 reads",
        ),
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%d0}, [data];", "all 32 lanes"),
        ("movmatrix.sync.aligned.m8n8.trans.b16 %d0, %a0;", "lanes 0xffff0000 here"),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r1}, {%r1},"
            " {%f1,%f2,%f3,%f4};",
            "all 32 lanes",
        ),
    ],
)
def test_missing_lanes(instruction, message):
    body = DIVERGED.format(instruction=instruction)
    with pytest.raises(DivergentCollective) as error:
        run(body, [A[:32]], ["u4"], shared_bytes=128, initcheck=False)
    assert message in str(error.value)
    assert error.value.line == line_of(body, ["u4"], ["u4"], 5, shared_bytes=128)


def test_different_masks():
    body = """setp.lt.u32 %p1, %t, 16;
        selp.b32 %r1, 0xFFFFFFFF, 0xFFFF0000, %p1;
        bar.warp.sync %r1;
        mov.u32 %d0, 0;"""
    with pytest.raises(DivergentCollective, match="different masks 0xffffffff, 0xffff0000"):
        run(body, [A[:32]], ["u4"])


def test_exited_lanes_are_missing():
    body = "setp.lt.u32 %p1, %t, 3;\nmov.u32 %d0, 1;\n@%p1 exit;\nbar.warp.sync -1;"
    with pytest.raises(DivergentCollective, match="lanes here 0xfffffff8"):
        run(body, [A[:32]], ["u4"])
