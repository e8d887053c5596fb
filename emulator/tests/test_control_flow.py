"""Branches, reconvergence, barriers."""

import numpy as np
import pytest

from emulator.ptx.errors import (
    Deadlock,
    DivergentCollective,
    StepLimit,
    Trap,
    UnsupportedInstruction,
)
from emulator.tests.template import line_of, run

RNG = np.random.default_rng(0)
A = RNG.integers(0, 1 << 32, 192, np.uint64).astype(np.uint32)
MASK = 0xFFFFFFFF


def step(x, k):
    return (x * 1664525 + 2 * k + 1) & MASK


def assign(k):
    return f"mad.lo.u32 %d0, %d0, 1664525, {2 * k + 1};"


# unstructured: blocks that go anywhere, also into the middle of loops


@pytest.mark.parametrize("seed", range(20))
def test_any_graph(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    targets = rng.integers(0, n + 1, (n, 3)).tolist()  # n is the end
    kinds = rng.integers(0, 4, n).tolist()
    lines = ["mov.u32 %d0, %a0;", "mov.u32 %r1, 40;"]
    for k, (kind, (first, second, third)) in enumerate(zip(kinds, targets, strict=True)):
        lines += [f"L{k}:", assign(k), "sub.u32 %r1, %r1, 1;", "setp.eq.u32 %p1, %r1, 0;"]
        lines += [f"@%p1 bra L{n};", "shr.u32 %r2, %d0, 13;"]
        if kind == 0:
            lines.append(f"bra.uni L{first};")
        elif kind == 1:
            lines += ["and.b32 %r2, %r2, 3;", "min.u32 %r2, %r2, 2;"]
            lines.append(f"T{k}: .branchtargets L{first}, L{second}, L{third};")
            lines.append(f"brx.idx %r2, T{k};")
        else:
            negated = "!" if kind == 2 else ""
            lines += ["and.b32 %r2, %r2, 1;", "setp.eq.u32 %p2, %r2, 0;"]
            lines += [f"@{negated}%p2 bra L{first};", f"bra L{second};"]
    lines.append(f"L{n}:")

    def of(x):
        k, fuel = 0, 40
        while k < n:
            x = step(x, k)
            fuel -= 1
            if fuel == 0:
                break
            bits = x >> 13
            first, second, third = targets[k]
            if kinds[k] == 0:
                k = first
            elif kinds[k] == 1:
                k = (first, second, third)[min(bits & 3, 2)]
            else:
                k = first if (bits & 1 == 0) == (kinds[k] == 3) else second
        return x

    result = run("\n".join(lines), [A], ["u4"], grid=3)
    assert result.tolist() == [of(x) for x in A.tolist()]


# structured: all lanes meet again after each statement


class Writer:
    """Random nested conditions and loops, as PTX and as a Python function of one lane."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.lines = ["mov.u32 %d0, %a0;"]
        self.n_labels = 0
        self.depth = 0

    def label(self):
        self.n_labels += 1
        return f"L{self.n_labels}"

    def statements(self, leave=None):
        """`leave` is the label to which a break goes; returns functions x -> (x, has broken)."""
        parts = [self.statement(leave) for _ in range(int(self.rng.integers(1, 4)))]

        def of(x):
            for part in parts:
                x, broken = part(x)
                if broken:
                    return x, True
            return x, False

        return of

    def test(self):
        """A predicate of x in %p1."""
        bit = int(self.rng.integers(8, 30))
        self.lines += [f"shr.u32 %r1, %d0, {bit};", "and.b32 %r1, %r1, 1;"]
        self.lines.append("setp.eq.u32 %p1, %r1, 1;")
        return lambda x: x >> bit & 1 == 1

    def statement(self, leave):
        choice = self.rng.integers(0, 5) if self.depth < 3 else 0
        if self.depth == 0:
            self.lines.append("bar.warp.sync -1;")
        self.depth += 1
        k = int(self.rng.integers(0, 100))
        if choice <= 1:
            self.lines.append(assign(k))

            def of(x):
                return step(x, k), False

        elif choice == 2 and leave is not None:
            test = self.test()
            self.lines.append(f"@%p1 bra {leave};")

            def of(x):
                return x, test(x)

        elif choice == 3:
            of = self.condition(leave)
        else:
            of = self.loop()
        self.depth -= 1
        return of

    def condition(self, leave):
        other, end = self.label(), self.label()
        test = self.test()
        self.lines.append(f"@!%p1 bra {other};")
        yes = self.statements(leave)
        self.lines += [f"bra {end};", f"{other}:"]
        no = self.statements(leave)
        self.lines.append(f"{end}:")
        return lambda x: yes(x) if test(x) else no(x)

    def loop(self):
        """Up to seven times, as often as the top bits of x say."""
        head, end, counter = self.label(), self.label(), f"%r{10 + self.n_labels}"
        self.lines += [
            f"shr.u32 {counter}, %d0, 29;",
            f"{head}:",
            f"setp.eq.u32 %p1, {counter}, 0;",
        ]
        self.lines += [f"@%p1 bra {end};", f"sub.u32 {counter}, {counter}, 1;"]
        body = self.statements(end)
        self.lines += [f"bra {head};", f"{end}:"]

        def of(x):
            for _ in range(x >> 29):
                x, broken = body(x)
                if broken:
                    break
            return x, False

        return of


@pytest.mark.parametrize("seed", range(40))
def test_structured_code_reconverges(seed):
    writer = Writer(seed)
    of = writer.statements()
    writer.lines.append("bar.warp.sync -1;")
    result = run("\n".join(writer.lines), [A], ["u4"], grid=3)
    assert result.tolist() == [of(x)[0] for x in A.tolist()]


def test_lanes_meet_before_the_next_iteration():
    body = """mov.u32 %d0, 0;
        and.b32 %r1, %t, 7;
        mov.u32 %r2, 0;
        again:
        setp.lt.u32 %p1, %r1, %r2;
        @%p1 bra skip;
        add.u32 %d0, %d0, 1;
        skip:
        bar.warp.sync -1;
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p2, %r2, 8;
        @%p2 bra again;"""
    result = run(body, [A[:64]], ["u4"])
    assert result.tolist() == [k % 8 + 1 for k in range(64)]


def test_returns_at_different_places():
    body = """mov.u32 %d0, 1;
        st.global.u32 [%at_d0], %d0;
        setp.lt.u32 %p1, %t, 10;
        @%p1 ret;
        mov.u32 %d0, 2;
        st.global.u32 [%at_d0], %d0;
        setp.lt.u32 %p1, %t, 20;
        @%p1 bra leave;
        mov.u32 %d0, 3;
        bra store;
        leave:
        exit;
        store:"""
    result = run(body, [A[:64]], ["u4"])
    assert result.tolist() == [1] * 10 + [2] * 10 + [3] * 44


# barriers


def test_blocks_take_different_numbers_of_turns():
    body = """add.u32 %r1, %i, %t;
        mov.u32 %r2, %ctaid.x;
        add.u32 %r2, %r2, 1;
        mov.u32 %d0, %a0;
        mov.u32 %r5, data;
        again:
        shl.b32 %r3, %t, 2;
        add.u32 %r3, %r3, %r5;
        st.shared.u32 [%r3], %d0;
        bar.sync 0;
        add.u32 %r4, %t, 1;
        rem.u32 %r4, %r4, 48;
        shl.b32 %r4, %r4, 2;
        add.u32 %r4, %r4, %r5;
        ld.shared.u32 %d0, [%r4];
        barrier.sync 0;
        sub.u32 %r2, %r2, 1;
        setp.ne.u32 %p1, %r2, 0;
        @%p1 bra again;"""
    result = run(body, [A], ["u4"], grid=4, shared_bytes=192, racecheck="shared")
    for block in range(4):
        wanted = np.roll(A[48 * block :][:48], -block - 1)
        np.testing.assert_array_equal(result[48 * block :][:48], wanted)


@pytest.mark.parametrize(
    ("operation", "kind", "wanted"),
    [("popc", "u32", 20), ("and", "pred", 0), ("or", "pred", 1)],
)
def test_barrier_with_a_reduction(operation, kind, wanted):
    result = "%r1" if kind == "u32" else "%p2"
    body = f"""setp.lt.u32 %p1, %t, 20;
        bar.red.{operation}.{kind} {result}, 0, %p1;
        {"mov.u32 %d0, %r1;" if kind == "u32" else "selp.u32 %d0, 1, 0, %p2;"}"""
    assert (run(body, [A[:96]], ["u4"]) == wanted).all()


def test_exited_threads_are_not_waited_for():
    body = """mov.u32 %d0, 0;
        setp.ge.u32 %p1, %t, 32;
        @%p1 exit;
        bar.sync 0;
        mov.u32 %d0, 1;"""
    result = run(body, [A[:96]], ["u4"])
    assert result[:32].tolist() == [1] * 32


def test_numbered_barriers_with_counts():
    """Warp 0 produces, warp 1 consumes, warp 2 does neither."""
    body = """mov.u32 %d0, 0;
        setp.ge.u32 %p1, %t, 64;
        @%p1 bra done;
        mov.u32 %r1, data;
        and.b32 %r2, %t, 31;
        mad.lo.u32 %r1, %r2, 4, %r1;
        setp.ge.u32 %p2, %t, 32;
        @%p2 bra consume;
        st.shared.u32 [%r1], %a0;
        bar.arrive 1, 64;
        bra done;
        consume:
        bar.sync 1, 64;
        ld.shared.u32 %d0, [%r1];
        done:"""
    result = run(body, [A[:96]], ["u4"], shared_bytes=128)
    np.testing.assert_array_equal(result[32:64], A[:32])


def test_a_barrier_that_some_never_reach():
    body = """mov.u32 %d0, 0;
        setp.lt.u32 %p1, %t, 32;
        @%p1 bra first;
        bar.sync 1;
        bra done;
        first:
        bar.sync 2;
        done:"""
    with pytest.raises(Deadlock, match="32 threads") as error:
        run(body, [A[:64]], ["u4"])
    assert error.value.text in ("bar.sync 1;", "bar.sync 2;")


def test_a_diverged_warp_at_a_barrier():
    body = """mov.u32 %d0, 0;
        setp.lt.u32 %p1, %t, 7;
        @%p1 bra first;
        bar.sync 0;
        bra done;
        first:
        bar.sync 0;
        done:"""
    with pytest.raises(DivergentCollective, match="0x0000007f") as error:
        run(body, [A[:64]], ["u4"])
    lines = [line_of(body, ["u4"], ["u4"], k) for k in (3, 6)]
    assert error.value.line in lines


# errors


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("again:\nbar.warp.sync -1;\nbra again;", StepLimit, "100"),
        ("trap;", Trap, "block (0,0,0) thread (0,0,0)"),
        ("setp.eq.u32 %p1, %t, 5;\n@%p1 brkpt;", Trap, "thread (5,0,0)"),
        ("dp4a.u32.u32 %d0, %a0, %a0, %a0;", UnsupportedInstruction, "'dp4a.u32.u32'"),
        ("cvt.rz.f16.f32 %h1, %f1;", UnsupportedInstruction, "'cvt.rz.f16.f32'"),
        ("mul24.lo.u32 %d0, %a0, %a0;", UnsupportedInstruction, "'mul24.lo.u32'"),
        ("call.uni helper, (%r1);", UnsupportedInstruction, "'call.uni'"),
        ("mov.u32 %d0, %pm0;", UnsupportedInstruction, "%pm0"),
    ],
)
def test_errors_name_their_line(body, error, message):
    body = "mov.u32 %d0, 0;\n" + body
    with pytest.raises(error) as caught:
        run(body, [A[:32]], ["u4"], max_steps=100)
    assert message in str(caught.value)
    last = body.count("\n") - (error is StepLimit)
    assert caught.value.line == line_of(body, ["u4"], ["u4"], last)


def test_what_is_not_reached_may_be_unsupported():
    body = """mov.u32 %d0, 1;
        setp.eq.u32 %p1, %t, 99;
        @!%p1 bra done;
        dp4a.u32.u32 %d0, %a0, %a0, %a0;
        done:"""
    assert (run(body, [A[:32]], ["u4"]) == 1).all()
