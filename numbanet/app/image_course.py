"""Job and progress of a training on a photograph, as a snapshot holds them."""

import math
from dataclasses import dataclass, field
from typing import Any

from numbanet.app.course import Course
from numbanet.history import is_count, is_table

METADATA_KEY = "learn_image"


@dataclass(frozen=True)
class Job:
    """Options that determine a training, bit for bit; a snapshot continues only the same job."""

    image_digest: str
    config: dict[str, Any]
    batch_size: int
    seed: int

    def is_usable(self) -> bool:
        """Whether all values have valid types and ranges, as they may come from a file."""
        are_numbers = is_count(self.batch_size, 2**31) and is_count(self.seed, 2**32)
        are_others = isinstance(self.image_digest, str) and isinstance(self.config, dict)
        return are_numbers and are_others and self.batch_size > 0


@dataclass
class ImageCourse(Course):
    """Progress of a training on a photograph; travels in the snapshot."""

    psnrs: list[tuple[int, float, float]] = field(default_factory=list)  # step, displayed, linear

    @property
    def psnr(self) -> float:
        return self.psnrs[-1][1] if self.psnrs else math.nan

    def is_usable(self) -> bool:
        are_measured = is_table(self.psnrs, self.step, float, float) and self.psnrs
        return bool(super().is_usable() and are_measured)


def read_metadata(metadata: dict[str, Any]) -> tuple[Job, ImageCourse]:
    """Job and progress that a training saved; KeyError or TypeError if they are unusable."""
    saved = metadata[METADATA_KEY]
    job, course = Job(**saved["job"]), ImageCourse(**saved["course"])
    if not (job.is_usable() and course.is_usable()):
        raise TypeError("these are not what was saved")
    return job, course
