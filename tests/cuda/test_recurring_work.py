"""Work that comes again is captured, as long as that pays."""

from numbanet.cuda.driver import graphs


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
