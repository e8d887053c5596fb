"""Jobs whose evaluations are a few named numbers; see learning.py for the loop."""

from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from numbanet.app.arguments import check_number, read_config
from numbanet.app.course import Course, picture_due, picture_name
from numbanet.app.curves import Curve, write_curves
from numbanet.app.files import write_json
from numbanet.app.learning import Learning
from numbanet.app.pictures import contact_sheet, write_picture
from numbanet.app.result import REFERENCE, JobResult
from numbanet.app.resuming import (
    check_batch_size,
    check_same,
    check_steps_left,
    create,
    load_saved,
)
from numbanet.history import is_count
from numbanet.random import Pcg32

DEFAULT_SEED = 1337


@dataclass(frozen=True)
class FieldJob:
    """Options that determine a training, bit for bit; a snapshot continues only the same job.

    Args:
        digest: of the data.
        options: of this kind of job.
    """

    digest: str
    config: dict[str, Any]
    batch_size: int
    seed: int
    options: dict[str, float] = field(default_factory=dict)

    def is_usable(self) -> bool:
        """Whether all values have valid types and ranges, as they may come from a file."""
        are_numbers = is_count(self.batch_size, 2**31) and is_count(self.seed, 2**32)
        are_others = isinstance(self.digest, str) and isinstance(self.config, dict)
        has_options = isinstance(self.options, dict) and all(
            type(value) in (int, float) for value in self.options.values()
        )
        return are_numbers and are_others and has_options and self.batch_size > 0


@dataclass(frozen=True)
class Asked:
    """Options of a job as the user gave them; None where a default or a snapshot decides."""

    config: Any = None
    n_steps: int = 1000
    batch_size: int | None = None
    seed: int | None = None
    device: Any = "auto"
    precision: str | None = None
    resume: Any = None
    options: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UsageError for numbers that are not allowed."""
        check_number("steps", self.n_steps, 0)
        check_number("batch size", 1 if self.batch_size is None else self.batch_size, 1)
        check_number("seed", 0 if self.seed is None else self.seed, 0, 2**32)


class MeasuredLearning(Learning):
    """Job that draws a picture and measures a few numbers.

    Args:
        data: for training; has name, digest and note.
    """

    command: ClassVar[str]
    default_batch_size: ClassVar[int] = 1 << 14
    curve: ClassVar[Curve]  # of one of the metrics

    def __init__(self, data: Any, job: FieldJob, model: Any, rng: Pcg32, course: Course):
        super().__init__(job, model, rng, course)
        self.data = data

    @classmethod
    @abstractmethod
    def config_for(cls, data: Any) -> dict[str, Any]:
        """Default config for the data."""

    @classmethod
    def n_inputs(cls, data: Any) -> int:
        """Number of the model's inputs; it has one output."""
        return 3

    @classmethod
    def begun(cls, data: Any, asked: Asked) -> "MeasuredLearning":
        """Job at its start, or as a snapshot left it."""
        asked.check()
        config = None if asked.config is None else read_config(asked.config)
        sizes = cls.n_inputs(data), 1
        place = {"device": asked.device, "precision": asked.precision}
        if asked.resume is None:
            seed = DEFAULT_SEED if asked.seed is None else int(asked.seed)
            model = create(
                *sizes, cls.config_for(data) if config is None else config, seed=seed, **place
            )
            batch_size = int(asked.batch_size or cls.default_batch_size)
            options = {name: value or 0.0 for name, value in asked.options.items()}
            job = FieldJob(data.digest, model.trainer.config(), batch_size, seed, options)
            return cls(data, job, model, Pcg32(seed), Course())
        read = cls.read_metadata
        model, job, course = load_saved(asked.resume, *place.values(), read, cls.command)
        check_batch_size(asked.resume, asked.batch_size, job.batch_size, cls.samples_name)
        if config is not None:
            config = create(*sizes, config).trainer.config()
        check_same(
            asked.resume,
            {
                "of something else": (data.digest, job.digest),
                "with another config": (config, job.config),
                f"with batch size {job.batch_size}": (asked.batch_size, job.batch_size),
                f"with seed {job.seed}": (asked.seed, job.seed),
                **{
                    f"with {name} {job.options.get(name, 0.0):g}": (value, job.options.get(name))
                    for name, value in asked.options.items()
                },
            },
        )
        check_steps_left(asked.resume, asked.n_steps, course.step)
        return cls(data, job, model, Pcg32.from_state(course.rng_state), course)

    @classmethod
    def read_metadata(cls, metadata: dict[str, Any]) -> tuple[FieldJob, Course]:
        """Job and progress that `save` put into a snapshot; KeyError or TypeError if unusable."""
        saved = metadata[cls.metadata_key]
        job, course = FieldJob(**saved["job"]), Course(**saved["course"])
        if not (job.is_usable() and course.is_usable()):
            raise TypeError("these are not what was saved")
        return job, course

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Metrics of the model's quality, by name."""

    @abstractmethod
    def draw(self) -> np.ndarray:
        """Picture of the learned data, [height, width, 3] in [0, 1]."""

    @abstractmethod
    def draw_reference(self) -> np.ndarray:
        """Picture of the given data."""

    @abstractmethod
    def describe(self, metrics: dict[str, float]) -> str:
        """Short text on an evaluation, for pictures and progress."""

    @abstractmethod
    def data_report(self) -> dict[str, Any]:
        """The report's section on the data."""

    def write_more(self) -> tuple[Path, ...]:
        """Write further results of the job at its end."""
        return ()

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last evaluation."""
        return self.course.metrics[-1][1] if self.course.metrics else {}

    @property
    def shown(self) -> tuple[str, ...]:
        return (self.describe(self.metrics),) if self.metrics else ()

    def evaluate(self, keep: bool = False) -> None:
        course, metrics = self.course, self.measure()
        if course.metrics and course.metrics[-1][0] == course.step:
            course.metrics.pop()
        course.metrics.append((course.step, metrics))
        if keep or picture_due(course.step):
            name = picture_name(course.step)
            write_picture(self.output / name, image_of(self.draw()))
            if (course.step, name) not in course.pictures:
                course.pictures.append((course.step, name))
            self.save()

    def write_reference(self) -> None:
        write_picture(self.output / REFERENCE, image_of(self.draw_reference()))

    def finish(self, n_steps: int, total_seconds: float) -> JobResult:
        course, output = self.course, self.output
        metrics = dict(course.metrics)
        labelled = [
            (path, f"step {step}: {self.describe(dict(metrics[step]))}")
            for path, step in self.kept_pictures()
            if step in metrics
        ]
        labelled.append((output / REFERENCE, "reference"))
        result = self.result(n_steps, self.metrics, labelled, self.write_more())
        write_picture(result.contact_sheet, contact_sheet(labelled, largest=768, columns=3))
        points = [(step, values[self.curve.name]) for step, values in course.metrics]
        title = (
            f"{self.data.name}: {course.step} steps of {self.job.batch_size} {self.samples_name}"
        )
        write_curves(result.curves, (course.losses, self.loss_name), (points, self.curve), title)
        report = self.report(result, n_steps, total_seconds)
        write_json(result.report, report)
        return result

    def report(self, result: JobResult, n_steps: int, total_seconds: float) -> dict[str, Any]:
        """The report of the job, ready for JSON."""
        course = self.course
        return {
            "job": asdict(self.job),
            "data": self.data_report(),
            **self.figures(n_steps, total_seconds),
            **result.metrics,
            "losses": [{"step": step, "loss": value} for step, value in course.losses],
            "evaluations": [{"step": step, **values} for step, values in course.metrics],
            "files": [path.name for path in result.files],
        }


def image_of(picture: np.ndarray) -> Image.Image:
    """Image of values [height, width, 3] in [0, 1]."""
    return Image.fromarray((np.clip(np.nan_to_num(picture), 0, 1) * 255 + 0.5).astype(np.uint8))
