"""Base of jobs: steps, evaluations when they are due, pictures and snapshots.

The loop is that of numbanet.training, so that a notebook, a viewer and a command drive the same
steps. Training time is as in numbanet.history: evaluations and pictures are not part of it.
"""

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.app.course import PICTURE_STEPS, Course, picture_name
from numbanet.app.errors import AppError, UsageError
from numbanet.app.files import writing
from numbanet.app.reported_job import ReportedJob
from numbanet.app.result import FILES, REFERENCE
from numbanet.callbacks import Callback
from numbanet.cuda.errors import CudaError
from numbanet.fit import INTERRUPTED, training
from numbanet.history import milestone_due
from numbanet.progress import SilentProgress
from numbanet.random import Pcg32
from numbanet.regular_file import check_regular
from numbanet.run import Run
from numbanet.shown import shown
from numbanet.volumes.cameras import Camera


@dataclass(frozen=True)
class WatchedLoss:
    """Loss whose errors, on reading, name the step."""

    loss: Any
    learning: "Learning"

    def __float__(self) -> float:
        self.learning.check_skipped()
        return float(self.loss)


class Learning(ReportedJob, Callback):
    """Base of all jobs; a subclass defines the step, the measurements and the pictures."""

    view_centre: tuple[float, float, float] = (0.5, 0.5, 0.5)  # which a viewer's camera orbits

    def __init__(self, job: Any, model: Any, rng: Pcg32, course: Course):
        super().__init__(job, model, rng, course)
        self.under_way: Run | None = None
        if not self.on_cpu:
            # "raise" would wait for each step; skipped ones are noticed when the loss is read.
            model.trainer.on_nonfinite = "skip"

    @abstractmethod
    def training_step(self) -> Any:
        """Make one step, on a GPU queue it; returns its loss."""

    @abstractmethod
    def prepare(self) -> None:
        """Evaluate the model on a few samples, so that it is compiled."""

    @abstractmethod
    def write_reference(self) -> None:
        """Write a picture of the target of the training."""

    def places(self, n_steps: int) -> list[str]:
        """Names of the files that the job writes."""
        return [REFERENCE, *FILES.values()]

    @abstractmethod
    def evaluate(self, keep: bool) -> None:
        """Measure the model; at powers of ten, or to `keep`, write picture and snapshot."""

    @abstractmethod
    def camera(self, width: int, height: int) -> Camera:
        """Initial camera of a viewer."""

    @abstractmethod
    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Render the model in its present state, [height, width, 3] in [0, 1]."""

    @abstractmethod
    def finish(self, n_steps: int, total_seconds: float) -> Any:
        """Write the final files, and return the result."""

    def run_in(
        self,
        output: str | Path,
        n_steps: int,
        progress: SilentProgress | None,
        interrupted: Callable[[], bool],
        note: str = "",
        view: bool | tuple[str, int] = False,
        view_stay: bool = False,
    ) -> Any:
        """Make the folder, check that all files can be written, and run the job.

        Args:
            view: whether to show a page, or its host and port.
            view_stay: whether the page stays after the training, until `interrupted`.
        """
        self.output, n_steps = Path(output), int(n_steps)  # which may be NumPy's
        with writing(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
        check_places(self.output, self.places(n_steps), n_steps)
        self.write_reference()
        shown = progress or SilentProgress()
        with ExitStack() as pages:
            viewers = self.viewers(view, interrupted, shown)
            for each in viewers:
                pages.callback(each.close)
            try:
                with shown:
                    if note:
                        shown.say(note)
                    result = self.run(n_steps, shown, interrupted, viewers)
                if view_stay and result.finished:
                    for each in viewers:
                        each.stay()
                return result
            except CudaError as error:
                raise AppError(str(error)) from error

    def run(
        self,
        n_steps: int,
        progress: SilentProgress,
        interrupted: Callable[[], bool],
        viewers: list[Any],
    ) -> Any:
        """Train up to step `n_steps` and write everything."""
        course, first_step, started = self.course, self.course.step, time.perf_counter()
        everyone = [self, *viewers]
        with closing(training(self, steps=n_steps, history=course, callbacks=everyone)) as steps:
            with progress.compiling():
                self.prepare()
                next(steps, None)
            self.compile_seconds = time.perf_counter() - started
            progress.training(first_step, n_steps)
            while True:
                last = course.step >= n_steps or interrupted()
                due = last or milestone_due(course.step)
                if due:
                    self.pause_to_evaluate(keep=last)
                progress.show(self.status(n_steps), milestone=due)
                if last:
                    break
                next(steps)
            if course.step < n_steps and self.under_way is not None:
                self.under_way.stop(INTERRUPTED)
        progress.over = True
        return self.finish(n_steps, time.perf_counter() - started)

    def viewers(
        self, view: bool | tuple[str, int], interrupted: Callable[[], bool], progress: Any
    ) -> list[Any]:
        """Callbacks that show the job in a page, if it is wanted."""
        if not view:
            return []
        from numbanet.app.listening import HOST, PORT
        from numbanet.app.live_view import LiveView

        if view is not True and not (isinstance(view, (tuple, list)) and len(view) == 2):
            raise UsageError(f"view: {shown(view)} is not allowed; use True or (host, port)")
        host, port = (HOST, PORT) if view is True else view
        return [LiveView(self, host, port, interrupted, progress.say)]

    def begin(self, run: Run) -> None:
        self.under_way = run

    def step(self) -> WatchedLoss:
        """Make one training step; on a GPU, queue it."""
        try:
            return WatchedLoss(self.training_step(), self)
        except FloatingPointError as error:
            raise self.diverged(self.course.step + 1, str(error)) from error

    def diverged(self, step: int, how: str) -> AppError:
        return AppError(f"step {step}: {how}; try a lower learning rate")

    def check_skipped(self) -> None:
        """Raise AppError if a step was skipped; a GPU is waited for."""
        if self.model.trainer.n_skipped_steps:
            how = "the loss or a gradient has become infinite or NaN"
            raise self.diverged(self.course.step, how)

    def pause_to_evaluate(self, keep: bool) -> None:
        """Evaluate, without counting the time."""
        if self.under_way is None:  # no step was asked for
            self.evaluate(keep)
            return
        with self.under_way.paused():
            self.evaluate(keep)


def check_places(output: Path, names: list[str], n_steps: int) -> None:
    """Raise AppError, before the training, if a file of it cannot be written."""
    pictures = [picture_name(step) for step in (*PICTURE_STEPS, n_steps) if step <= n_steps]
    for name in (*names, *pictures):
        path = output / name
        with writing(path), suppress(FileNotFoundError):
            check_regular(path.stat().st_mode, str(path))
