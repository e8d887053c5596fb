"""Preparation of a training on a scene: its pictures, and its first or last state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from numbanet.app.errors import UsageError
from numbanet.app.fields.field import SIZES, RadianceField, config_for
from numbanet.app.fields.field_course import FieldCourse, Job, read_header, read_tensors, restore
from numbanet.app.fields.field_training import FieldTraining
from numbanet.app.fields.learner import FieldLearner
from numbanet.app.fields.scene_data import SIZE, SceneData, is_made, made_scene
from numbanet.app.fields.transforms import read_scene
from numbanet.app.fields.views import Views
from numbanet.app.resuming import check_batch_size, check_same, check_steps_left
from numbanet.target import AbstractTarget
from numbanet.targets import target_for

DEFAULT_SEED = 1337
DEFAULT_STEPS = {"cpu": 1000, "cuda": 5000}
DEFAULT_DOWNSCALE = {"cpu": 2, "cuda": 1}


def target_on(device: Any, precision: str | None) -> AbstractTarget:
    """Target of a device; raises UsageError where there is none."""
    try:
        return target_for(device, precision)
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error


def scene_on(scene: str | Path, target: AbstractTarget, downscale: int | None) -> SceneData:
    """Scene, drawn or read."""
    kind = target.name.partition(":")[0]
    downscale = DEFAULT_DOWNSCALE[kind] if downscale is None else downscale
    if is_made(scene) and not has_scene(Path(scene)):
        return made_scene(str(scene), target, max(SIZE // downscale, 1))
    if not Path(scene).exists():
        raise UsageError(
            f"'{scene}' is neither a folder with transforms.json nor one of the scenes that are "
            "made here: spheres, boxes, torus, thin, glossy, text, fog, many"
        )
    return read_scene(scene, downscale)


def has_scene(path: Path) -> bool:
    """Whether the path is a file, or a folder with a scene, not with results."""
    names = "transforms.json", "transforms_train.json"
    return path.is_file() or any((path / name).exists() for name in names)


def prepared(
    data: SceneData, given: Any, asked: dict[str, Any], target: AbstractTarget, resume: Any
) -> FieldTraining:
    """Training at step 0, or as a snapshot of the same job left it."""
    kind = target.name.partition(":")[0]
    size = SIZES[kind]
    if resume is None:
        defaults = {
            "n_steps": DEFAULT_STEPS[kind], "batch_size": size.batch_size, "seed": DEFAULT_SEED,
            "background": "random" if data.has_opacity else "black", "exposure": False,
        }  # fmt: skip
        chosen = {name: defaults[name] if asked[name] is None else asked[name] for name in asked}
        config = merged(config_for(size, data.n_levels), given or {})
        job, course, steps = Job(data.digest, config, **chosen), FieldCourse(), None
    else:
        job, course, steps = continued(data, given, asked, resume)
        with told():
            tensors = read_tensors(resume, job, len(data.train))
    learner = learner_of(data, job, target)
    if steps is not None:
        with told():
            restore(resume, learner, tensors, steps)
        learner.go_on(
            course.step, course.n_rays, course.all_rays, course.n_samples, course.last_kept
        )
        learner.rng.state = course.rng_state
    return FieldTraining(data, job, learner, course)


@contextmanager
def told() -> Iterator[None]:
    """Context for reading a snapshot: OSError, TypeError and ValueError become UsageError."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def learner_of(data: SceneData, job: Job, target: AbstractTarget) -> FieldLearner:
    """Learner of a scene, at step 0."""
    try:
        field = RadianceField(job.config, job.seed, target.name, target.precision)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"config: {error!s:.500}") from error
    views = Views(data.train.cameras, data.train.pixels, field.target)
    return FieldLearner(
        field, views, batch_size=job.batch_size, background=job.background, seed=job.seed,
        exposure=job.exposure, n_steps=job.n_steps,
    )  # fmt: skip


def continued(data: SceneData, given: Any, asked: dict[str, Any], path: Any) -> tuple:
    """Job, course and counts of a snapshot, whose job must be the requested one."""
    try:
        job, course, steps = read_header(path)
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_batch_size(path, asked["batch_size"], job.batch_size, "samples")
    pairs = {
        "on another scene, or other sizes of its pictures": (data.digest, job.scene_digest),
        "with another config": (given and merged(job.config, given), job.config),
        **{
            f"with {name.replace('_', ' ')} {getattr(job, name)}": (asked[name], getattr(job, name))
            for name in ("batch_size", "seed", "background", "exposure")
        },
    }
    check_same(path, pairs)
    job = job if asked["n_steps"] is None else replace(job, n_steps=asked["n_steps"])
    check_steps_left(path, job.n_steps, course.step)
    return job, course, steps


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Config with changes: objects are merged, everything else is replaced.

    An object with another otype replaces the one that is there.
    """
    found = dict(config)
    for name, value in changes.items():
        before = found.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        if both and value.get("otype", before.get("otype")) == before.get("otype"):
            found[name] = merged(before, value)
        else:
            found[name] = value
    return found
