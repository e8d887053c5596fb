"""Numba's compiler while it does less: what is skipped, and that it is itself again."""

from numba.core import base, compiler, errors, event, ir, postproc
from numba.core.compiler import run_frontend
from numba.core.typing import context

from numbanet.lean_numba import lean

PARTS = base, context, compiler.Flags, errors, event, postproc
REPLACED = (
    (base.BaseContext, "refresh"),
    (context.BaseContext, "refresh"),
    (compiler.Flags, "values"),
    (event, "start_event"),
    (event, "end_event"),
    (event, "install_timer"),
    (postproc.PostProcessor, "run"),
)


def sum_of(values):
    total = 0
    for value in values:
        total += value
    return total


def numbers(n):
    yield n
    yield n + 1


def test_numba_is_itself_again():
    before, own = [getattr(owner, name) for owner, name in REPLACED], set(vars(compiler.Flags))
    with lean(*PARTS):
        during = [getattr(owner, name) for owner, name in REPLACED]
    assert [getattr(owner, name) for owner, name in REPLACED] == before
    assert set(vars(compiler.Flags)) == own  # which inherit `values`
    assert all(one is not other for one, other in zip(before, during, strict=True))


def test_options_are_the_same():
    flags = compiler.Flags()
    flags.nrt = True
    before = flags.values()
    with lean(*PARTS):
        assert flags.values() == before
        assert flags != compiler.Flags()


def test_whoever_listens_is_told():
    with lean(*PARTS):
        with event.install_recorder("numba:compiler_lock") as heard:
            event.start_event("numba:compiler_lock")
            event.end_event("numba:compiler_lock")
        with event.install_timer("numba:compiler_lock", None):
            assert not event._registered["numba:compiler_lock"]
    assert [told.is_start for _, told in heard.buffer] == [True, False]


def test_messages_have_no_colours():
    with lean(*PARTS):
        error = errors.TypingError("no such type", loc=ir.Loc("a.py", 3))
    assert "\x1b" not in str(error)
    assert str(error).split("\n")[:3] == ["no such type", "", 'File "a.py", line 3:']


def test_lifetimes_are_those_of_numba():
    whole = run_frontend(sum_of)
    with lean(*PARTS):
        lazy = run_frontend(sum_of)
        assert "livemap" not in vars(lazy.variable_lifetime)
    kinds = ("livemap", "deadmaps", "usedefs")
    for kind in kinds:
        assert getattr(lazy.variable_lifetime, kind) == getattr(whole.variable_lifetime, kind)


def test_generators_are_analysed():
    with lean(*PARTS):
        assert run_frontend(numbers).generator_info.get_yield_points()
