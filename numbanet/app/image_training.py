"""The training of a network on a photograph: steps, measurements, pictures.

Each step draws random positions in [0, 1)^2 and looks up their colours in linear light, between the
pixel centres by bilinear interpolation. Pictures are the network's colours at the pixel centres.
Their PSNR compares displayed values (gamma-encoded, clamped to [0, 1], not rounded to 8 bits) with
those of the photograph; the report also has it for linear light.

Training time is what passes between the evaluations: drawing positions, looking up colours, steps,
now and then reading a loss. Evaluations and pictures are not part of it, nor is the first step,
which compiles or loads the compiled code. A GPU works on while the host queues more steps, so the
clock is read only where a loss was, for which all steps before had to be finished: up to 100 steps
apart.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.bilinear import colours_of
from numbanet.app.curves import write_curves
from numbanet.app.environment import environment, processor
from numbanet.app.errors import AppError
from numbanet.app.files import write_file, writing
from numbanet.app.image_course import METADATA_KEY, Course, Job, picture_name
from numbanet.app.photograph import Photograph, to_encoded
from numbanet.app.pictures import Picture, contact_sheet, psnr, squared_error, write_picture
from numbanet.app.progress import SilentProgress, Status
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget

PICTURE_STEPS = tuple(10**k for k in range(1, 10))
FILES = {  # fields of Result; the pictures come on top
    "contact_sheet": "contact_sheet.png",
    "curves": "curves.png",
    "report": "report.json",
    "snapshot": "snapshot.safetensors",
}


@dataclass(frozen=True)
class Result:
    """What a training reached and the files it wrote."""

    step: int
    finished: bool
    loss: float
    psnr: float
    samples_per_second: float
    pictures: tuple[Path, ...]
    contact_sheet: Path
    curves: Path
    report: Path
    snapshot: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.pictures, self.contact_sheet, self.curves, self.report, self.snapshot)

    def for_programs(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "step": self.step,
            "finished": self.finished,
            "loss": self.loss,
            "psnr": self.psnr,
            "samples_per_second": self.samples_per_second,
            "files": [str(path) for path in self.files],
        }


@dataclass
class ImageTraining:
    """A job under way."""

    photograph: Photograph
    job: Job
    model: Any
    rng: Pcg32
    course: Course
    output: Path = Path()
    loss: numbanet.Loss | None = None
    compile_seconds: float = 0.0
    lap_start: tuple[float, int] | None = None  # seconds and step from which time is counted

    def __post_init__(self):
        if not self.on_cpu:
            # "raise" would wait for each step; skipped ones are noticed when the loss is read.
            self.model.trainer.on_nonfinite = "skip"

    @property
    def target(self) -> AbstractTarget:
        return self.model.network.target

    @property
    def on_cpu(self) -> bool:
        return self.target.name == "cpu"

    @cached_property
    def colours_at(self) -> Callable[[Any], Any]:
        """Function from positions to the photograph's colours, on the target."""
        return colours_of(self.photograph, self.target)

    def run(
        self, n_steps: int, progress: SilentProgress, interrupted: Callable[[], bool]
    ) -> Result:
        """Train up to step `n_steps` and write everything; see learn_image."""
        course = self.course
        first_step = course.step
        started = time.perf_counter()
        with progress.compiling():
            self.model(self.photograph.centres(0, 1))
            if course.step < n_steps:
                self.advance()
                self.read_loss()
        self.compile_seconds = time.perf_counter() - started
        self.start_lap()
        progress.training(first_step, n_steps)
        while True:
            last = course.step >= n_steps or interrupted()
            due = last or evaluation_due(course.step)
            if due:
                self.evaluate(keep=last)
            progress.show(self.status(n_steps), milestone=due)
            if due:
                self.start_lap()
            if last:
                break
            self.advance()
        return self.finish(n_steps, time.perf_counter() - started)

    def advance(self) -> None:
        """Make one training step; on a GPU, queue it."""
        course, batch_size = self.course, self.job.batch_size
        positions = self.rng.device_uniform(2 * batch_size, self.target).reshape(batch_size, 2)
        course.step += 1
        try:
            self.loss = self.model.trainer.training_step(positions, self.colours_at(positions))
        except FloatingPointError as error:
            raise self.diverged(str(error)) from error
        if loss_due(course.step):
            self.note_loss()

    def diverged(self, how: str) -> AppError:
        return AppError(f"step {self.course.step}: {how}; try a lower learning rate")

    def read_loss(self) -> float:
        """The loss of the last step, for which a GPU is waited for."""
        if self.model.trainer.n_skipped_steps:
            raise self.diverged("the loss or a gradient has become infinite or NaN")
        return float(self.loss)

    def note_loss(self) -> None:
        """Read the loss and, as all steps are done then, the clock."""
        course = self.course
        course.losses.append((course.step, self.read_loss()))
        if self.lap_start is not None:
            seconds, step = self.lap_start
            course.training_seconds += time.perf_counter() - seconds
            course.timed_steps += course.step - step
            self.start_lap()

    def start_lap(self) -> None:
        """Count time from here on; called where no work is queued."""
        self.lap_start = time.perf_counter(), self.course.step

    def strip(self, first: int, last: int) -> np.ndarray:
        """The network's picture in linear light, some rows of it, [rows, width, 3]."""
        colours = self.model(self.photograph.centres(first, last))
        colours = self.target.to_host(colours)  # waits for a GPU
        return colours.reshape(last - first, self.photograph.width, 3)

    def evaluate(self, keep: bool = False) -> None:
        """Measure the PSNR; at powers of ten, or to `keep`, write picture and snapshot too."""
        course, photograph = self.course, self.photograph
        if self.loss is not None and course.losses[-1][0] != course.step:
            self.note_loss()
        keep = keep or picture_due(course.step)
        picture = Picture(photograph.width, photograph.height) if keep else None
        displayed = in_light = 0.0
        for first, last in photograph.strips():
            linear = self.strip(first, last)
            encoded = to_encoded(linear)
            displayed += squared_error(encoded, photograph.encoded(first, last))
            in_light += squared_error(np.clip(linear, 0, 1), photograph.linear(first, last))
            if picture is not None:
                picture.draw(first, encoded)
        n = 3 * photograph.height * photograph.width
        course.psnrs.append((course.step, psnr(displayed, n), psnr(in_light, n)))
        if picture is not None:
            name = picture_name(course.step)
            write_picture(self.output / name, picture.image)
            course.pictures.append((course.step, name))
            self.save()

    def save(self) -> None:
        self.course.rng_state = self.rng.state
        saved = {"job": asdict(self.job), "course": asdict(self.course)}
        path = self.output / FILES["snapshot"]
        with writing(path):
            self.model.save(path, metadata={METADATA_KEY: saved})

    @property
    def samples_per_second(self) -> float:
        course = self.course
        if not course.timed_steps:
            return 0.0
        return course.timed_steps * self.job.batch_size / course.training_seconds

    def status(self, n_steps: int) -> Status:
        course = self.course
        return Status(course.step, n_steps, course.loss, course.psnr, self.samples_per_second)

    def finish(self, n_steps: int, total_seconds: float) -> Result:
        """Write what shows the whole course, and name all files."""
        course, output, photograph = self.course, self.output, self.photograph
        pictures = [(output / name, step) for step, name in course.pictures]
        pictures = [(path, step) for path, step in pictures if path.exists()]
        displayed = {step: value for step, value, _ in course.psnrs}
        labelled = [(path, f"step {step}: {displayed[step]:.1f} dB") for path, step in pictures]
        labelled.append((output / "reference.png", "reference"))
        result = Result(
            step=course.step,
            finished=course.step >= n_steps,
            loss=course.loss,
            psnr=course.psnr,
            samples_per_second=self.samples_per_second,
            pictures=tuple(path for path, _ in labelled),
            **{name: output / file for name, file in FILES.items()},
        )
        most = photograph.width * photograph.height
        write_picture(result.contact_sheet, contact_sheet(labelled, max_pixels=most))
        title = f"{photograph.path.name}: {course.step} steps of {self.job.batch_size} samples"
        write_curves(result.curves, course.losses, list(displayed.items()), title)
        report = self.report(result, n_steps, total_seconds)
        write_file(result.report, json.dumps(report, indent=2).encode())
        return result

    def report(self, result: Result, n_steps: int, total_seconds: float) -> dict[str, Any]:
        """Every figure of the training, ready for JSON."""
        course, photograph, network = self.course, self.photograph, self.model.network
        return {
            "job": asdict(self.job),
            "image": {
                "path": str(photograph.path),
                "width": photograph.width,
                "height": photograph.height,
                "white": photograph.white,
            },
            "model": {
                "n_params": network.n_params,
                "device": network.device,
                "device_name": processor() if self.on_cpu else self.target.device.name,
                "precision": network.precision,
            },
            "steps": {"asked": n_steps, "made": course.step, "finished": result.finished},
            "loss": course.loss if course.losses else None,
            "psnr": course.psnr,
            "psnr_linear": course.psnrs[-1][2],
            "timings": {
                "compile_seconds": self.compile_seconds,
                "training_seconds": course.training_seconds,
                "timed_steps": course.timed_steps,
                "samples_per_second": self.samples_per_second,
                "total_seconds": total_seconds,
            },
            "losses": [{"step": step, "loss": value} for step, value in course.losses],
            "psnrs": [
                {"step": step, "psnr": displayed, "psnr_linear": linear}
                for step, displayed, linear in course.psnrs
            ],
            "files": [path.name for path in result.files],
            "environment": environment(),
        }


def loss_due(step: int) -> bool:
    """Every step at first, then ever fewer: about 90 a decade."""
    return step < 100 or step % min(10 ** (len(str(step)) - 2), 100) == 0


def evaluation_due(step: int) -> bool:
    """Steps 1, 2, 5, 10, 20, ... and every 1000th."""
    digits = str(step)
    return (digits[0] in "125" and not digits[1:].strip("0")) or step % 1000 == 0


def picture_due(step: int) -> bool:
    """Steps 10, 100, 1000, ..."""
    return step in PICTURE_STEPS
