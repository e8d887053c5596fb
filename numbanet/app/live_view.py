"""Page in the browser that shows a model while it learns.

Pictures are drawn between two steps, by the thread that trains, so that nothing reads parameters
while they change. They take a SHARE of the time: after one that took t seconds, the next comes t /
SHARE later, and its resolution is such that t stays short. Where nobody looks, nothing is drawn.
The page (viser) keeps its own state: who reloads it, or joins later, sees what the others do.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np

from numbanet.app.errors import AppError, UsageError
from numbanet.app.listening import HOST, PORT, check_place, free_port
from numbanet.callbacks import Callback
from numbanet.run import Run
from numbanet.volumes.cameras import Camera

SHARE = 0.06  # of the time, for pictures
GOOD_SECONDS = 0.1  # of a picture
LEAST_WIDTH, MOST_WIDTH = 64, 960
STILL_WIDTH = 480  # at least, of a picture that nothing moves, while paused
MOST_EXACT = 320  # width up to which pixels are sent as they are
TEXT_SECONDS = 0.5  # between two updates of figures and curve
MOST_POINTS = 300  # of the curve
IDLE_SECONDS = 0.02  # between checks for requests, while paused
LEAST_EXPONENT, MOST_EXPONENT = -2.0, 1.0  # of the factor of the learning rate


@dataclass
class Viewer:
    """One open page.

    Args:
        client: viser's handle.
        moved: whether its camera moved, or it came, since the last picture.
        sharp: whether the last picture was a large one.
        width: of its pictures, in pixels.
    """

    client: Any
    moved: bool = True
    sharp: bool = False
    width: int = 160


@dataclass
class Wishes:
    """Requests of users; written by the page's threads, read between steps."""

    paused: bool = False
    snapshot: bool = False
    exponent: float = 0.0
    viewers: dict[int, Viewer] = field(default_factory=dict)


class LiveView(Callback):
    """Viewer of a learner: an object with picture(camera, width, height), camera(width, height),
    save() and status(n_steps).

    Args:
        host, port: where the page is; the next port that is free is taken.
        interrupted: asked while the training is paused.
        say: is told the address.

    Raises:
        UsageError: viser is not installed, or there is no such place.
    """

    def __init__(
        self,
        learner: Any,
        host: str = HOST,
        port: int = PORT,
        interrupted: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ):
        check_place(host, port)
        try:
            import viser
        except ImportError as error:
            raise UsageError('a view needs viser; pip install "numbanet[view]"') from error
        self.learner, self.interrupted, self.say = learner, interrupted, say
        self.host, self.port, self.viser = host, port, viser
        self.wishes = Wishes()
        self.next_picture = self.next_text = 0.0
        self.shown_exponent = 0.0
        self.run: Run | None = None  # once the page is served
        self.is_over = False

    @property
    def address(self) -> str:
        """URL of the page, while it is served."""
        host = f"[{self.host}]" if ":" in self.host else self.host  # of IPv6
        return f"http://{host}:{self.server.get_port()}"

    def begin(self, run: Run) -> None:
        try:
            port = free_port(self.host, self.port)  # without one viser would wait for ever
            with redirect_stdout(StringIO()):  # where results are printed
                self.server = self.viser.ViserServer(self.host, port, "numbanet", verbose=False)
        except OSError as error:
            reason = error.strerror or error
            raise AppError(f"cannot listen on {self.host}:{self.port}: {reason}") from error
        self.run = run
        self._set_camera()
        self._add_controls()
        self.server.on_client_connect(self._enter)
        self.server.on_client_disconnect(
            lambda client: self.wishes.viewers.pop(client.client_id, None)
        )
        self.say(f"look at {self.address}")

    def _set_camera(self) -> None:
        """Set the initial camera of new pages."""
        first = self.learner.camera(64, 64)
        pose = first.pose
        position, back = pose[:, 3], pose[:, 2]
        distance = np.linalg.norm(position - np.array(self.learner.view_centre)) or 1.0
        camera = self.server.initial_camera
        self.server.scene.set_up_direction("+z")
        camera.position = tuple(map(float, position))
        camera.look_at = tuple(map(float, position - distance * back))
        camera.up = (0.0, 0.0, 1.0)
        camera.fov = 2 * math.atan(32 / first.focal[1])

    def _add_controls(self) -> None:
        gui, wishes = self.server.gui, self.wishes
        self.text = gui.add_markdown("compiling")
        empty = np.array([1.0, 2.0]), np.array([1.0, 1.0])
        series = (
            self.viser.uplot.Series(label="step"),
            self.viser.uplot.Series(label="loss", stroke="#0072b2", width=2),
        )
        scales = {"x": self.viser.uplot.Scale(time=False), "y": self.viser.uplot.Scale(distr=3)}
        self.curve = gui.add_uplot(empty, series, scales=scales, aspect=1.6, visible=False)
        self.pause = gui.add_button("Pause", icon=self.viser.Icon.PLAYER_PAUSE)
        self.snapshot = gui.add_button("Snapshot", icon=self.viser.Icon.DEVICE_FLOPPY)
        self.rate = gui.add_slider(
            "learning rate x 10^", LEAST_EXPONENT, MOST_EXPONENT, 0.1, 0.0,
            hint="a factor of the learning rate",
        )  # fmt: skip

        @self.pause.on_click
        def _(event):
            wishes.paused = not wishes.paused
            self.pause.label = "Continue" if wishes.paused else "Pause"

        @self.snapshot.on_click
        def _(event):
            wishes.snapshot = True

        @self.rate.on_update
        def _(event):
            wishes.exponent = float(self.rate.value)

    def _enter(self, client: Any) -> None:
        """Follow the camera of a newly opened page."""
        viewer = self.wishes.viewers[client.client_id] = Viewer(client)

        @client.camera.on_update
        def _(camera):
            viewer.moved = True

    def after_step(self, run: Run) -> None:
        self._obey(run)
        if not self.wishes.viewers and not self.wishes.paused:
            return
        now = time.perf_counter()
        if now >= self.next_picture or self.wishes.paused:
            with run.paused():
                self._show(run)
                while self.wishes.paused and not self.interrupted():
                    self._obey(run)
                    self._show_still(run)
                    time.sleep(IDLE_SECONDS)

    def _obey(self, run: Run) -> None:
        """Carry out the requests since the last step."""
        wishes = self.wishes
        if wishes.exponent != self.shown_exponent:
            self.shown_exponent = wishes.exponent
            run.scale_rate(10**wishes.exponent)
        if wishes.snapshot:
            wishes.snapshot = False
            with run.paused():
                self.learner.save()
            for viewer in list(wishes.viewers.values()):
                with unless_gone():
                    viewer.client.add_notification("Snapshot", f"saved at step {run.step}")

    def _show_still(self, run: Run) -> None:
        """Draw while paused: again for cameras that move, finely for those that do not."""
        if time.perf_counter() >= self.next_text:
            self._write(run)
        for viewer in list(self.wishes.viewers.values()):
            if viewer.moved:
                self._draw(viewer)
            elif not viewer.sharp:
                self._draw(viewer, sharp=True)

    def _show(self, run: Run) -> None:
        """Draw for all viewers, and schedule the next time."""
        started = time.perf_counter()
        if started >= self.next_text:
            self._write(run)
        for viewer in list(self.wishes.viewers.values()):
            self._draw(viewer)
        ended = time.perf_counter()
        self.next_picture = ended + (ended - started) / SHARE

    def _draw(self, viewer: Viewer, sharp: bool = False) -> None:
        """Draw for one page, and adapt its resolution."""
        viewer.moved, viewer.sharp = False, sharp
        started = time.perf_counter()
        camera = viewer.client.camera
        width = max(viewer.width, STILL_WIDTH) if sharp else viewer.width
        height = max(round(width / max(float(camera.aspect), 0.1)), 1)
        picture = self.learner.picture(camera_of(camera, width, height), width, height)
        pixels = (np.clip(np.nan_to_num(picture), 0, 1) * 255 + 0.5).astype(np.uint8)
        kind = "png" if width <= MOST_EXACT else "jpeg"
        with unless_gone():
            viewer.client.scene.set_background_image(pixels, format=kind)
        if not sharp:
            change = math.sqrt(GOOD_SECONDS / max(time.perf_counter() - started, 1e-4))
            new_width = viewer.width * min(max(change, 0.6), 1.4)
            viewer.width = int(min(max(new_width, LEAST_WIDTH), MOST_WIDTH))

    def _write(self, run: Run) -> None:
        """Update figures and curve."""
        self.next_text = time.perf_counter() + TEXT_SECONDS
        rate = run.trainer.learning_rates_in_force[0]
        state = "**paused** at" if self.wishes.paused else "**step**"
        state = "**done**, step" if self.is_over else state
        status = self.learner.status(run.n_steps)
        self.text.content = (
            f"{state} {run.step} of {run.n_steps}  \n{str(status).replace('  ', ', ')}  \n"
            f"learning rate {rate:.3g}"
        )
        losses = run.history.losses
        if len(losses) > 1:
            chosen = losses[:: max(-(-len(losses) // MOST_POINTS), 1)]
            steps, values = np.array(chosen, np.float64).T
            self.curve.data = steps, np.maximum(values, 1e-12)
            self.curve.visible = True

    def stay(self) -> None:
        """Show the model as it is until the user interrupts; the training is over."""
        run = self.run
        if run is None or self.interrupted():
            return
        self.is_over = True
        for each in (self.pause, self.rate):
            each.visible = False
        for viewer in list(self.wishes.viewers.values()):
            viewer.moved = True
        self.say(f"the page stays at {self.address}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            while not self.interrupted():
                self._obey(run)
                self._show_still(run)
                time.sleep(IDLE_SECONDS)

    def close(self) -> None:
        """Stop serving the page."""
        if self.run is not None:
            self.run = None
            with redirect_stdout(StringIO()):
                self.server.stop()


@contextmanager
def unless_gone() -> Iterator[None]:
    """Context for a message to a page that may have just been closed, of which viser warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
        yield


def camera_of(camera: Any, width: int, height: int) -> Camera:
    """Camera of a page; its axes are OpenCV's: x right, y down, z forward."""
    w, x, y, z = np.asarray(camera.wxyz, np.float64)
    right = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    down = np.array([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
    pose = np.stack([right, -down, -np.cross(right, down), np.asarray(camera.position)], axis=1)
    focal = height / 2 / math.tan(float(camera.fov) / 2)
    return Camera(pose, width, height, (focal, focal))
