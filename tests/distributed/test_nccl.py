"""What NCCL is asked for, by bindings that note it; test_ranks_on_gpus.py asks NCCL itself."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from numbanet.communicator import Alone, RankError
from numbanet.cuda.ranks.collectives import collectives

WAITS = []
DEVICE = SimpleNamespace(
    ordinal=3, stream=17, dlpack_device=(2, 3), wait_at_most=lambda *how: WAITS.append(how)
)
BOUNDS = 0, 64, 100


class UniqueId(bytes):
    from_bytes = classmethod(lambda cls, data: cls(data))


class SecondOfTwo(Alone):
    """Rank 1, to which rank 0 says what it is told here."""

    rank, size = 1, 2

    def __init__(self, uuid):
        super().__init__()
        self.uuid = uuid

    def gather(self, numbers):
        is_name = numbers.size == 4
        first = np.frombuffer(self.uuid.encode(), np.uint8) if is_name else numbers
        return np.stack([first, numbers])


@pytest.fixture
def calls(monkeypatch):
    """The calls of nccl4py that are made, in the place of what may be installed."""
    made = []

    def noted(name):
        return lambda *arguments: made.append((name, *arguments))

    def begin(size, rank, unique_id):
        made.append(("init", size, rank, bytes(unique_id)))
        return SimpleNamespace(ptr=99)

    core = SimpleNamespace(
        UINT8=1, FLOAT32=7, SUM=0, UniqueId=UniqueId, group=nullcontext,
        get_unique_id=lambda empty: UniqueId(128 * (b"e" if empty else b"i")),
        Communicator=SimpleNamespace(init=begin),
    )  # fmt: skip
    names = "all_reduce", "reduce_scatter", "all_gather"
    bindings = SimpleNamespace(Comm=lambda number: number, **{name: noted(name) for name in names})
    devices = SimpleNamespace(
        Device=lambda ordinal: SimpleNamespace(
            uuid=f"gpu{ordinal}", set_current=lambda: made.append(("current", ordinal))
        )
    )
    modules = {
        "nccl": SimpleNamespace(core=core), "nccl.core": core,
        "nccl.bindings": SimpleNamespace(nccl=bindings), "cuda.core": devices,
    }  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_calls_by_address_on_the_stream_of_the_device(calls):
    nccl = collectives(DEVICE, SecondOfTwo("gpu0"))
    assert calls == [("current", 3), ("init", 2, 1, 128 * b"e")]
    calls.clear()
    vector, other = (
        SimpleNamespace(address=address, size=100, dtype=np.dtype(np.float32))
        for address in (1000, 9000)
    )
    halves = SimpleNamespace(address=5000, size=100, dtype=np.dtype(np.float16))
    nccl.sum(vector, other)
    nccl.sum_part(vector, other, BOUNDS)
    nccl.fill(vector, BOUNDS)
    nccl.fill(halves, BOUNDS)
    assert calls == [
        ("all_reduce", 1000, 9000, 100, 7, 0, 99, 17),
        ("reduce_scatter", 1000, 9000, 64, 7, 0, 99, 17),
        ("all_gather", 1000 + 4 * 64, 1000, 4 * 64, 1, 99, 17),
        ("all_gather", 5000 + 2 * 64, 5000, 2 * 64, 1, 99, 17),
    ]
    assert nccl.is_queued


def test_a_wait_for_other_gpus_ends(calls):
    collectives(DEVICE, SecondOfTwo("gpu0"))
    seconds, overdue = WAITS[-1]
    assert seconds == Alone.timeout
    with pytest.raises(RankError, match="rank 1 of 2 waited 300 s for what GPUs do together"):
        overdue()


def test_two_ranks_on_one_gpu_are_told(calls):
    with pytest.raises(RankError, match="ranks 0 and 1 of 2 are both on GPU gpu3"):
        collectives(DEVICE, SecondOfTwo("gpu3"))


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "nccl", None)
    with pytest.raises(RuntimeError, match=r"pip install 'numbanet\[nccl\]'"):
        collectives(DEVICE, Alone())
