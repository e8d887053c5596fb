"""What a training on a photograph is, and how far it has come: what a snapshot of it holds."""

import math
from dataclasses import dataclass, field
from typing import Any

from numbanet.optimizers.base import MOST_STEPS

METADATA_KEY = "learn_image"


@dataclass(frozen=True)
class Job:
    """What determines a training, bit for bit; a snapshot continues only the same job."""

    image_digest: str
    config: dict[str, Any]
    batch_size: int
    seed: int


@dataclass
class Course:
    """What happened so far; travels in the snapshot."""

    step: int = 0
    training_seconds: float = 0.0
    timed_steps: int = 0
    rng_state: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    psnrs: list[tuple[int, float, float]] = field(default_factory=list)  # step, displayed, linear
    pictures: list[tuple[int, str]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        return self.losses[-1][1] if self.losses else math.nan

    @property
    def psnr(self) -> float:
        return self.psnrs[-1][1] if self.psnrs else math.nan


def read_metadata(metadata: dict[str, Any]) -> tuple[Job, Course]:
    """What ImageTraining.save put into a snapshot; KeyError or TypeError if it did not."""
    saved = metadata[METADATA_KEY]
    job, course = Job(**saved["job"]), Course(**saved["course"])
    if not (is_usable_job(job) and is_usable_course(course)):
        raise TypeError("these are not what was saved")
    return job, course


def is_usable_job(job: Job) -> bool:
    """Whether all is of its type and in its range, which nothing ensures in a file."""
    are_numbers = is_count(job.batch_size, 2**31) and is_count(job.seed, 2**32)
    are_others = isinstance(job.image_digest, str) and isinstance(job.config, dict)
    return are_numbers and are_others and job.batch_size > 0


def is_usable_course(course: Course) -> bool:
    """As is_usable_job; a picture has the name that ImageTraining gives it."""
    are_counts = (
        is_count(course.step, MOST_STEPS)
        and is_count(course.timed_steps, MOST_STEPS)
        and is_count(course.rng_state, 2**64)
    )
    are_rows = all(
        isinstance(table, list) and all(is_row(row, *kinds) for row in table)
        for table, kinds in (
            (course.losses, (int, float)),
            (course.psnrs, (int, float, float)),
            (course.pictures, (int, str)),
        )
    )
    if not (are_counts and are_rows and course.psnrs and (course.losses or course.step == 0)):
        return False
    steps = [step for step, *_ in (*course.losses, *course.psnrs, *course.pictures)]
    return (
        all(is_count(step, course.step + 1) for step in steps)
        and all(name == picture_name(step) for step, name in course.pictures)
        and isinstance(course.training_seconds, float)
        and course.timed_steps * 1e-12 <= course.training_seconds < math.inf
    )


def is_count(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def is_row(row: Any, *kinds: type) -> bool:
    if not isinstance(row, list) or len(row) != len(kinds):
        return False
    return all(type(value) is kind for value, kind in zip(row, kinds, strict=True))


def picture_name(step: int) -> str:
    return f"step_{step:06}.png"
