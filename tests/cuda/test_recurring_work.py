"""Work that comes again is captured, as long as that pays."""

import threading
from types import SimpleNamespace

from numbanet.cuda.driver import graphs
from numbanet.cuda.inference import RecurringInference
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.inputs import FLOAT


class Device:
    """Notes what is captured and replayed."""

    def __init__(self):
        self.captured, self.replayed = 0, []

    def capture(self, queue):
        self.captured += 1
        queue()
        return self.captured

    def replay(self, graph):
        self.replayed.append(graph)


def test_work_is_captured_when_it_comes_again():
    device, queued = Device(), []
    work = graphs.Graphs(device)
    for _ in range(4):
        for key in "ab":
            work.run((key,), queued.append, key)
    assert queued == ["a", "b", "a", "b"]
    assert device.replayed == [1, 2, 1, 2, 1, 2]


def test_graphs_that_are_seldom_played_are_not_made_for_ever():
    device, queued = Device(), []
    work = graphs.Graphs(device)
    for key in range(1000):
        for _ in range(2):
            work.run((key,), queued.append, key)
    assert device.captured <= graphs.CREDIT // (graphs.PRICE - 1) + 1
    assert queued.count(999) == 2


def test_graphs_that_are_played_pay_for_others():
    device, queued = Device(), []
    work = graphs.Graphs(device)
    for key in range(1000):
        for each in (key, key, *["kept"] * graphs.PRICE):
            work.run((each,), queued.append, each)
    assert device.captured == 1001


def test_inference_is_captured_on_the_default_stream_alone():
    """On another one, another library may be capturing."""
    device, passes = Device(), []
    device.lock, device.stream = threading.RLock(), 7
    x, y = (DeviceArray((4, k), FLOAT, 4096 * k, None, device) for k in (2, 3))
    engine, parameters = SimpleNamespace(generation=1), SimpleNamespace(are_current=True)
    params = DeviceArray((5,), FLOAT, 64, None, device)
    work = RecurringInference(device, 3)

    def evaluate(*arrays):
        passes.append(arrays)
        return arrays[2]

    def call():
        found = work.again(x, y, engine, parameters, evaluate)
        return work.run(x, params, y, engine, evaluate) if found is None else found

    for _ in range(4):
        assert call() is y
    assert (passes, device.captured) == ([(x, params, y)] * 4, 0)
    device.stream = 1
    for _ in range(4):
        assert call() is y
    assert (len(passes), device.captured, len(device.replayed)) == (6, 1, 3)
    device.stream = 7
    assert call() is y
    assert (len(passes), len(device.replayed)) == (7, 3)
