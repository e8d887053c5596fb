"""Job and progress of a training on a scene, as a snapshot holds them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from numbanet.app.course import Course
from numbanet.app.fields.field import RadianceField, checked
from numbanet.app.fields.field_jobs import N_FEATURES, N_INPUTS
from numbanet.app.fields.learner import BACKGROUNDS, MOST_RAYS, FieldLearner
from numbanet.create import create_components
from numbanet.history import is_count, is_table
from numbanet.saved_training import SavedTraining, tensor_shapes
from numbanet.snapshot import SnapshotError, check_finite, open_snapshot, write_snapshot

KIND = "learn_field"
HEADS = "density", "colour"
WIDTHS = (3, N_FEATURES), (N_INPUTS, 3)


@dataclass(frozen=True)
class Job:
    """Options that determine a training; a snapshot continues only the same job."""

    scene_digest: str
    config: dict[str, Any]
    batch_size: int
    seed: int
    background: str
    exposure: bool
    n_steps: int

    def is_usable(self) -> bool:
        """Whether all values have valid types and ranges, as they may come from a file."""
        return (
            isinstance(self.scene_digest, str)
            and isinstance(self.config, dict)
            and is_count(self.batch_size, 2**31)
            and self.batch_size > 0
            and is_count(self.seed, 2**32)
            and self.background in (*BACKGROUNDS, "random")
            and isinstance(self.exposure, bool)
            and is_count(self.n_steps, 2**31)
        )


@dataclass
class FieldCourse(Course):
    """Progress of a training on a scene; travels in the snapshot."""

    psnrs: list[tuple[int, float]] = field(default_factory=list)
    n_rays: int = 0
    all_rays: int = 0
    n_samples: int = 0
    last_kept: int = 0

    @property
    def psnr(self) -> float:
        return self.psnrs[-1][1] if self.psnrs else math.nan

    def is_usable(self) -> bool:
        counts = is_count(self.n_rays, MOST_RAYS + 1) and all(
            is_count(each, 2**63) for each in (self.all_rays, self.n_samples)
        )
        return bool(
            super().is_usable()
            and counts
            and is_count(self.last_kept, 2**32)
            and is_table(self.psnrs, self.step, float)
        )


def tensors_of(learner: FieldLearner) -> dict[str, Any]:
    """All tensors of a training, on the host, by name."""
    field, found = learner.field, {}
    for head in HEADS:
        tensors = getattr(field, head).trainer.tensors()
        found |= {f"{head}.{name}": tensor for name, tensor in tensors.items()}
    for name, array in others_of(learner).items():
        found[name] = learner.target.to_host(array)
    return found


def others_of(learner: FieldLearner) -> dict[str, Any]:
    return {
        "grid.densities": learner.field.grid.densities,
        "gains": learner.gains,
        "gain_moments": learner.gain_moments,
    }


def write(path: Any, learner: FieldLearner, job: Job, course: FieldCourse) -> None:
    """Write a snapshot of a training; raises OSError."""
    trainers = {head: getattr(learner.field, head).trainer for head in HEADS}
    header = {
        "kind": KIND,
        "job": asdict(job),
        "course": asdict(course),
        "steps": {head: [t.n_steps, t.n_skipped_steps] for head, t in trainers.items()},
    }
    write_snapshot(path, tensors_of(learner), header)


def read_header(path: Any) -> tuple[Job, FieldCourse, dict[str, list[int]]]:
    """The job and the course of a snapshot, and the counts of its heads.

    Raises:
        SnapshotError: it is none of a field.
        OSError: it cannot be read.
    """
    with open_snapshot(path) as file:
        header = file.header
    try:
        if header.get("kind") != KIND:
            raise TypeError("this is no training of learn-field")
        job, course, steps = Job(**header["job"]), FieldCourse(**header["course"]), header["steps"]
        good = (
            job.is_usable()
            and course.is_usable()
            and all(
                len(steps[head]) == 2 and all(is_count(each, 2**31) for each in steps[head])
                for head in HEADS
            )
        )
        if not good:
            raise TypeError("these are not what was saved")
    except (KeyError, TypeError) as error:
        raise SnapshotError(
            f"{path}: was not saved by learn-field and cannot be resumed ({error!s:.100})"
        ) from error
    return job, course, steps


def shapes_of(config: Mapping[str, Any], n_views: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a training's tensors, none of which is allocated; raises ConfigError."""
    config, found = checked(config), {}
    for head, (n_inputs, n_outputs) in zip(HEADS, WIDTHS, strict=True):
        composition, _, optimizer = create_components(n_inputs, n_outputs, config[head])
        shapes = tensor_shapes(optimizer, composition.layout)
        found |= {f"{head}.{name}": shape for name, shape in shapes.items()}
    grid = config["grid"]
    others = {
        "grid.densities": (grid["n_levels"] * grid["resolution"] ** 3,),
        "gains": (n_views, 3),
        "gain_moments": (3 * n_views, 2),
    }
    return {**found, **others}


def read_tensors(path: Any, job: Job, n_views: int) -> dict[str, Any]:
    """Tensors of a snapshot; raises SnapshotError unless they are those of its job.

    Raises:
        SnapshotError, ConfigError: they are not, or the job cannot be.
        OSError: the file cannot be read.
    """
    expected = shapes_of(job.config, n_views)
    with open_snapshot(path) as file:
        tensors = file.tensors(expected)
        check_finite(file.name, tensors)
    return tensors


def restore(path: Any, learner: FieldLearner, tensors: Any, steps: dict[str, list[int]]) -> None:
    """Restore a learner of the same job to the state in a snapshot.

    Raises:
        SnapshotError: the numbers are not ones that training leads to.
    """
    restore_heads(path, learner.field, tensors, steps)
    for name, array in others_of(learner).items():
        learner.target.copy_from_host(array, tensors[name])


def restore_heads(
    path: Any, field: RadianceField, tensors: Any, steps: dict[str, list[int]]
) -> None:
    """Restore both models of a field; raises SnapshotError as `restore`."""
    for head in HEADS:
        trainer = getattr(field, head).trainer
        parts = trainer.network.composition, trainer.loss, trainer.optimizer
        saved, start = SavedTraining(*parts, *steps[head], {}), f"{head}."
        own = {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
        saved.check_numbers(str(path), own, allow_nonfinite=False)
        trainer.restore(saved, own)
