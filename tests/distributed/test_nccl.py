"""What NCCL is asked for, by bindings that note it; test_ranks_on_gpus.py asks NCCL itself."""

import gc
import platform
import sys
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from numbanet.communicator import Alone, RankError
from numbanet.cuda.ranks import shared_memory
from numbanet.cuda.ranks.collectives import collectives
from numbanet.cuda.ranks.shared_memory import SharedMemory, memory_of_rank

WAITS = []
DEVICE = SimpleNamespace(
    ordinal=3, stream=17, dlpack_device=(2, 3), wait_at_most=lambda *how: WAITS.append(how),
    synchronize=lambda: None, allocate=lambda n: 1, free=lambda address: None,
)  # fmt: skip
BOUNDS = 0, 64, 100
MOST_BYTES = 1000


class UniqueId(bytes):
    from_bytes = classmethod(lambda cls, data: cls(data))


class SecondOfTwo(Alone):
    """Rank 1, to which rank 0 says what it is told here, or else the same."""

    rank, size = 1, 2

    def __init__(self, uuid="gpu0", host=None):
        super().__init__()
        self.texts = [f"{uuid} {platform.node() if host is None else host}"]
        self.votes = []

    def gather(self, numbers):
        first = np.array([self.votes.pop(0)]) if self.votes else numbers
        return np.stack([first, numbers])

    def gather_text(self, text):
        return [self.texts.pop(0) if self.texts else text, text]


class NCCLError(Exception):
    """As that of the bindings."""


@pytest.fixture
def calls(monkeypatch):
    """The calls of nccl4py that are made, in the place of what may be installed."""
    made = []

    def noted(name):
        return lambda *arguments: made.append((name, *arguments))

    def begin(size, rank, unique_id, config):
        made.append(("init", size, rank, bytes(unique_id), config))
        return SimpleNamespace(ptr=99)

    def allocate(n):
        made.append(("allocate", n))
        if n > MOST_BYTES:
            raise NCCLError("too much")
        return n << 20

    def open_window(*arguments):
        made.append(("open", *arguments))
        return 1000 + arguments[1]

    core = SimpleNamespace(
        UINT8=1, FLOAT32=7, SUM=0, UniqueId=UniqueId, group=nullcontext,
        get_unique_id=lambda empty: UniqueId(128 * (b"e" if empty else b"i")),
        Communicator=SimpleNamespace(init=begin), NCCLConfig=dict,
        WindowFlag=SimpleNamespace(COLL_SYMMETRIC=1),
    )  # fmt: skip
    names = "all_reduce", "reduce_scatter", "all_gather", "comm_window_deregister", "mem_free"
    bindings = SimpleNamespace(
        Comm=lambda number: number, NCCLError=NCCLError, mem_alloc=allocate,
        comm_window_register=open_window, **{name: noted(name) for name in names},
    )  # fmt: skip
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
    monkeypatch.setattr(shared_memory, "RETURNED", defaultdict(list))
    return made


def test_calls_by_address_on_the_stream_of_the_device(calls):
    comm = SecondOfTwo()
    nccl = collectives(DEVICE, comm)
    assert calls == [("current", 3), ("init", 2, 1, 128 * b"e", {"min_ctas": 32})]
    assert collectives(DEVICE, comm) is nccl
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
    collectives(DEVICE, SecondOfTwo())
    seconds, overdue = WAITS[-1]
    assert seconds == Alone.timeout
    with pytest.raises(RankError, match="rank 1 of 2 waited 300 s for what GPUs do together"):
        overdue()


def test_ranks_on_several_hosts_have_blocks_as_nccl_chooses(calls):
    collectives(DEVICE, SecondOfTwo(host="another host"))
    assert calls[-1][-1] is None


def of_memory(owner):
    return SimpleNamespace(owner=owner)


def begun(calls):
    """Rank 0's votes on what they do next, and the collectives of both."""
    comm = SecondOfTwo()
    nccl = collectives(DEVICE, comm)
    calls.clear()
    return comm, nccl


def without_current(calls):
    found = [call for call in calls if call[0] != "current"]
    calls.clear()
    return found


def test_shared_memory_has_a_window_until_no_rank_uses_it(calls):
    comm, nccl = begun(calls)
    one, other = (memory_of_rank(DEVICE, n) for n in (8, 16))
    nccl.share(of_memory(one), of_memory(one))
    nccl.share(of_memory(one), of_memory(other))
    assert without_current(calls) == [
        ("allocate", 8), ("allocate", 16),
        ("open", 99, 8 << 20, 8, 1), ("open", 99, 16 << 20, 16, 1),
    ]  # fmt: skip
    assert (one.number, other.number) == (0, 1)
    del one, other
    gc.collect()
    assert not calls
    comm.texts = ["1 7"]  # rank 0 still uses the first one
    nccl.share(of_memory(memory_of_rank(DEVICE, 24)))
    freed = [("comm_window_deregister", 99, 1000 + (16 << 20)), ("mem_free", 16 << 20)]
    opened = ("open", 99, 24 << 20, 24, 1)
    assert without_current(calls) == [("allocate", 24), *freed, opened]
    gc.collect()
    nccl.share(of_memory(memory_of_rank(DEVICE, 32)))
    freed = [call for call in calls if call[0] in ("comm_window_deregister", "mem_free")]
    assert [call[-1] for call in freed] == [
        *(1000 + (8 << 20), 1000 + (24 << 20)),
        *(8 << 20, 24 << 20),
    ]


@pytest.mark.parametrize("votes", [[0], [1, 0]])
def test_memory_stays_plain_unless_all_ranks_share_it(calls, votes):
    """Rank 0's is plain, or NCCL opens no window there."""
    comm, nccl = begun(calls)
    memory, comm.votes = memory_of_rank(DEVICE, 8), votes.copy()
    nccl.share(of_memory(memory))
    assert not memory.has_window
    opened = ("open", 99, 8 << 20, 8, 1), ("comm_window_deregister", 99, 1000 + (8 << 20))
    assert without_current(calls) == [("allocate", 8), *(opened if len(votes) > 1 else ())]
    nccl.share(of_memory(memory))
    assert not calls
    del memory
    gc.collect()
    plain = memory_of_rank(DEVICE, 0)
    assert type(plain) is not SharedMemory
    again = memory_of_rank(DEVICE, 16)
    assert without_current(calls) == [("mem_free", 8 << 20), ("allocate", 16)]
    del again


def test_memory_is_freed_on_the_gpu_that_it_belongs_to(calls):
    other = SimpleNamespace(**{**vars(DEVICE), "ordinal": 4, "dlpack_device": (2, 4)})
    memory = memory_of_rank(DEVICE, 8)
    del memory
    gc.collect()
    calls.clear()
    kept = memory_of_rank(other, 16)
    assert calls == [("current", 4), ("allocate", 16)]
    calls.clear()
    kept = [kept, memory_of_rank(DEVICE, 24)]
    freed = [("current", 3), ("mem_free", 8 << 20)]
    assert calls == [*freed, ("current", 3), ("allocate", 24)]


def test_memory_is_plain_where_nccl_has_none(calls, monkeypatch):
    _, nccl = begun(calls)
    memory = memory_of_rank(DEVICE, MOST_BYTES + 1)
    assert type(memory) is not SharedMemory
    nccl.share(of_memory(memory))
    assert [name for name, *_ in without_current(calls)] == ["allocate"]
    monkeypatch.setitem(sys.modules, "nccl.bindings", None)
    assert type(memory_of_rank(DEVICE, 8)) is not SharedMemory


def test_a_window_that_nccl_refuses_leaves_memory_plain(calls, monkeypatch):
    _, nccl = begun(calls)

    def refuse(*_):
        raise NCCLError("unsupported")

    monkeypatch.setattr(nccl._bindings, "comm_window_register", refuse)
    memory = memory_of_rank(DEVICE, 8)
    nccl.share(of_memory(memory))
    assert not memory.has_window


def test_two_ranks_on_one_gpu_are_told(calls):
    with pytest.raises(RankError, match="ranks 0 and 1 of 2 are both on GPU gpu3"):
        collectives(DEVICE, SecondOfTwo("gpu3"))


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "nccl", None)
    with pytest.raises(RuntimeError, match=r"pip install 'numbanet\[nccl\]'"):
        collectives(DEVICE, Alone())
