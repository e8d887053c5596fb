"""The page that shows a training, in headless Chromium."""

import socket
import sys
import threading
import time

import numpy as np
import pytest
from chromium import browser

import numbanet
from numbanet.app import listening, live_view
from numbanet.app.errors import AppError, UsageError
from numbanet.app.learn_image import learn_image
from numbanet.progress import SilentProgress
from numbanet.run import Run
from numbanet.volumes import Camera

pytest.importorskip("viser", reason="needs viser")
SMALL = {"batch_size": 256, "seed": 7, "device": "cpu"}
PATIENCE = 60  # seconds
COMPILING = 600  # seconds


def wait_for(condition, seconds=PATIENCE):
    """Until it holds, or the test fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Session:
    """A training with a view, in a thread."""

    def __init__(self, photograph, config, output, monkeypatch):
        self.stop, self.view, self.run = threading.Event(), None, None
        self.pictures = []
        begin, draw = live_view.LiveView.begin, live_view.LiveView._draw

        def remember(view, run):
            self.run = run
            begin(view, run)
            self.view = view

        def count(view, viewer, **options):
            draw(view, viewer, **options)
            self.pictures.append(run_step(self))

        monkeypatch.setattr(live_view.LiveView, "begin", remember)
        monkeypatch.setattr(live_view.LiveView, "_draw", count)
        self.result = None

        def work():
            self.result = learn_image(
                photograph, config, n_steps=10**6, output=output, interrupted=self.stop.is_set,
                view=("127.0.0.1", free_port()), **SMALL,
            )  # fmt: skip

        self.thread = threading.Thread(target=work)

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.has_begun() or not self.thread.is_alive(), COMPILING)
        return self

    def __exit__(self, *exception):
        self.stop.set()
        self.thread.join(COMPILING)

    def has_begun(self):
        return self.view is not None and self.run.step > 0


def run_step(session):
    return session.run.step


@pytest.fixture
def session(photograph, config, tmp_path, monkeypatch):
    browser()  # or skip
    with Session(photograph, config, tmp_path / "out", monkeypatch) as session:
        yield session
    assert session.result.step > 0


@pytest.fixture
def page(session):
    page = browser().new_page(viewport={"width": 800, "height": 500})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(session.view.address)
    page.get_by_role("button", name="Pause").wait_for(timeout=1000 * PATIENCE)
    yield page
    assert page.errors == []
    page.close()


def middle(page):
    """What the page shows, without the panel; as bytes of a PNG."""
    return page.screenshot(clip={"x": 0, "y": 150, "width": 450, "height": 350})


def test_the_page(page, session, tmp_path):
    """It shows pictures that change, follows the camera, and its buttons work."""
    wait_for(lambda: len(session.pictures) > 3)
    assert session.pictures[-1] > session.pictures[0]  # training went on between them
    first = middle(page)
    wait_for(lambda: middle(page) != first)
    page.get_by_text("learning rate 0.01").wait_for(timeout=1000 * PATIENCE)

    page.get_by_role("button", name="Pause").click()
    wait_for(lambda: session.view.wishes.paused)
    page.get_by_role("button", name="Continue").wait_for(timeout=1000 * PATIENCE)
    (viewer,) = session.view.wishes.viewers.values()
    wait_for(lambda: viewer.sharp)
    step = run_step(session)
    time.sleep(0.5)
    still = middle(page)
    page.mouse.move(200, 250)
    page.mouse.down()
    page.mouse.move(300, 220, steps=5)
    page.mouse.up()
    wait_for(lambda: middle(page) != still)
    assert run_step(session) == step

    page.reload()
    page.get_by_role("button", name="Continue").wait_for(timeout=1000 * PATIENCE)  # still paused
    page.get_by_role("button", name="Continue").click()
    wait_for(lambda: run_step(session) > step)

    saved = tmp_path / "out" / "snapshot.safetensors"
    page.get_by_role("button", name="Snapshot").click()
    page.get_by_text("saved at step").wait_for(timeout=1000 * PATIENCE)
    assert numbanet.load(saved, device="cpu").trainer.n_steps >= step

    field = page.get_by_role("textbox").last
    field.fill("-1")
    field.press("Enter")
    wait_for(lambda: session.run.trainer.learning_rate == pytest.approx(1e-3))


def test_only_this_machine_sees_it(session):
    port = session.view.server.get_port()
    assert session.view.server.get_host() == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError, match="refused"):  # this machine too, at another address
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_nobody_looking_costs_nothing(session):
    wait_for(lambda: run_step(session) > 50)
    assert session.pictures == []


class Lines(SilentProgress):
    """What a training says."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def begin_with_a_viewer(monkeypatch):
    """Every page has one viewer; returns the pages."""
    views, begin = [], live_view.LiveView.begin

    def begun(view, run):
        begin(view, run)
        view.wishes.viewers[0] = live_view.Viewer(Client())
        views.append(view)

    monkeypatch.setattr(live_view.LiveView, "begin", begun)
    return views


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("stay", [True, False])
def test_the_page_stays_until_it_is_ended(monkeypatch, photograph, config, tmp_path, stay):
    views, stop, progress = begin_with_a_viewer(monkeypatch), threading.Event(), Lines()
    out, results = tmp_path / "out", []

    def work():
        results.append(learn_image(
            photograph, config, n_steps=3, output=out, view=("127.0.0.1", free_port()),
            view_stay=stay, progress=progress, interrupted=stop.is_set, **SMALL,
        ))  # fmt: skip

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        if stay:
            wait_for(lambda: any("stays at" in line for line in progress.lines), COMPILING)
            (view,) = views
            assert (out / "report.json").exists()
            viewer = view.wishes.viewers[0]
            wait_for(lambda: viewer.sharp and "done" in view.text.content)
            viewer.moved = True  # as when it is turned
            wait_for(lambda: not viewer.moved)
            (out / "snapshot.safetensors").unlink()
            view.wishes.snapshot = True
            wait_for((out / "snapshot.safetensors").exists)
            assert thread.is_alive()
            stop.set()
        thread.join(COMPILING)
    finally:
        stop.set()
    assert results[0].finished
    assert any("stays at" in line for line in progress.lines) is stay
    port = int(progress.lines[0].rpartition(":")[2])  # another program may have taken the given one
    wait_for(lambda: is_refused(port))


def test_who_ends_the_training_ends_the_page(monkeypatch, photograph, config, tmp_path):
    views, progress = begin_with_a_viewer(monkeypatch), Lines()
    place, n_asked = ("127.0.0.1", free_port()), iter(range(100))
    result = learn_image(
        photograph, config, n_steps=50, output=tmp_path / "out", view=place, view_stay=True,
        progress=progress, interrupted=lambda: next(n_asked) > 2, **SMALL,
    )  # fmt: skip
    assert not result.finished
    assert len(views) == 1
    assert not any("stays at" in line for line in progress.lines)


class Client:
    """What a page's handle is to LiveView."""

    def __init__(self):
        self.camera = type("Camera", (), {})()
        self.camera.wxyz, self.camera.position = (1, 0, 0, 0), (0, 0, -1)
        self.camera.aspect, self.camera.fov = 1.0, 1.0
        self.scene = type("Scene", (), {"set_background_image": lambda *a, **o: None})()
        self.add_notification = lambda *texts: None


def test_pictures_take_little_time(monkeypatch):
    """Resolution follows the speed, and pictures keep their distance, on a clock of our own."""
    now = [0.0]
    clock = type("Clock", (), {"perf_counter": lambda: now[0]})
    monkeypatch.setattr(live_view, "time", clock)
    widths = []

    def picture(camera, width, height):
        now[0] += 2.0 * width * height / 160**2  # 2 s at first
        widths.append(width)
        return np.zeros((height, width, 3))

    view = live_view.LiveView(type("Learner", (), {"picture": staticmethod(picture)}))
    monkeypatch.setattr(view, "_write", lambda run: None)
    view.wishes.viewers[0] = live_view.Viewer(Client())

    class Trainer:
        comm = None

    run = Run(
        type("L", (), {"step": lambda self: 1.0, "trainer": Trainer()})(),
        None,
        10,
        numbanet.History(),
    )
    spent = 0.0
    for _ in range(20000):
        now[0] += 0.01
        before = now[0]
        view.after_step(run)
        spent += now[0] - before
    assert spent < 0.1 * now[0]
    assert widths[0] == 160
    assert widths[-1] < 64 + 1


def test_cameras_of_pages_are_ours():
    place, at = np.array([1.5, -0.7, 1.2]), np.array([0.5, 0.5, 0.5])
    ours = Camera.looking(at, place, 64, 48, angle=0.7)
    right, up, back = ours.pose[:, 0], ours.pose[:, 1], ours.pose[:, 2]
    rotation = np.stack([right, -up, -back], axis=1)  # of OpenCV's axes
    w = np.sqrt(1 + np.trace(rotation)) / 2
    x, y, z = (
        np.array([rotation[2, 1], rotation[0, 2], rotation[1, 0]])
        - np.array([rotation[1, 2], rotation[2, 0], rotation[0, 1]])
    ) / (4 * w)
    page = type("Camera", (), {})()
    page.wxyz, page.position = (w, x, y, z), place
    page.fov = 2 * np.arctan(24 / ours.focal[1])
    theirs = live_view.camera_of(page, 64, 48)
    np.testing.assert_allclose(theirs.pose, ours.pose, atol=1e-12)
    np.testing.assert_allclose(theirs.focal, ours.focal)


def test_without_viser(monkeypatch, photograph, config, tmp_path):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(UsageError, match=r'pip install "numbanet\[view\]"'):
        learn_image(photograph, config, n_steps=2, output=tmp_path / "out", view=True, **SMALL)


@pytest.mark.parametrize(
    "place",
    [("", 8080), (5, 8080), ("127.0.0.1", 0), ("127.0.0.1", 65536), ("127.0.0.1", "80"), "8080", 3],
    ids=str,
)
def test_places_that_are_none(place, photograph, config, tmp_path):
    with pytest.raises(UsageError, match=r"view.*is not allowed; use"):
        learn_image(photograph, config, n_steps=2, output=tmp_path / "out", view=place, **SMALL)


@pytest.mark.parametrize("host", ["999.1.1.1", "192.0.2.1", "a" * 70], ids=str)
def test_hosts_that_are_not_here(host, photograph, config, tmp_path):
    with pytest.raises(AppError, match=f"cannot listen on {host}:8080: "):
        learn_image(
            photograph, config, n_steps=2, output=tmp_path / "out", view=(host, 8080), **SMALL
        )


def test_the_next_port_that_is_free_is_taken(monkeypatch):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        assert port < listening.free_port("127.0.0.1", port) <= port + listening.MOST_PORTS
        monkeypatch.setattr(listening, "MOST_PORTS", 1)
        with pytest.raises(OSError, match="no port from"):
            listening.free_port("127.0.0.1", port)
