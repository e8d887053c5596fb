"""Learn a scene from pictures of it: a radiance field, in the manner of instant-ngp."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from numbanet.app.arguments import check_number, read_config
from numbanet.app.errors import UsageError
from numbanet.app.fields.field import SIZES, RadianceField, config_for
from numbanet.app.fields.field_course import FieldCourse, Job, read_header, read_tensors, restore
from numbanet.app.fields.field_training import FieldTraining, Result
from numbanet.app.fields.learner import BACKGROUNDS, FieldLearner
from numbanet.app.fields.scene_data import SIZE, SceneData, is_made, made_scene
from numbanet.app.fields.transforms import read_scene
from numbanet.app.fields.views import Views
from numbanet.app.resuming import check_batch_size, check_same, check_steps_left
from numbanet.progress import SilentProgress
from numbanet.target import AbstractTarget
from numbanet.targets import target_for

DEFAULT_SEED = 1337
DEFAULT_STEPS = {"cpu": 1000, "cuda": 5000}
DEFAULT_DOWNSCALE = {"cpu": 2, "cuda": 1}


def learn_field(
    scene: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    n_steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: Any = "auto",
    precision: str | None = None,
    output: str | Path = "learned",
    resume: str | Path | None = None,
    downscale: int | None = None,
    background: str | None = None,
    exposure: bool | None = None,
    view: bool | tuple[str, int] = False,
    progress: SilentProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a radiance field on a scene and write pictures, curves, a report and a snapshot.

    Args:
        scene: a folder with transforms.json, such a file, or the name of one of the eight scenes
            that are drawn here: spheres, boxes, torus, thin, glossy, text, fog, many.
        config: sections "density", "colour" and "grid", a JSON file or its content; what it lacks
            is as for the device.
        n_steps: steps in all, those before a resumed snapshot included; 1000 on the CPU, 5000 on a
            GPU.
        batch_size: samples of a step that light reaches, about; 2^14 on the CPU, 2^18 on a GPU.
        seed: of the initial parameters and of the rays; 1337 by default.
        device, precision: as for numbanet.create_from_config.
        output: directory to write to; it is created.
        resume: a snapshot of the same job to continue; gives the defaults of the other options.
        downscale: pictures are made so many times smaller; 2 on the CPU, 1 on a GPU.
        background: behind pictures with an opacity: "white", "black", or "random", which is drawn
            anew for each ray, and white where it is shown. "random" by default for such pictures,
            "black" for others.
        exposure: whether each camera has gains of its own, which are learned.
        view: True for a page in the browser that shows what is learned, on this machine alone, or
            the host and port where it is.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    for name, value, least, limit in (
        ("steps", n_steps, 0, 2**31), ("batch size", batch_size, 1, 2**28),
        ("seed", seed, 0, 2**32), ("downscale", downscale, 1, 2**10),
    ):  # fmt: skip
        if value is not None:
            check_number(name, value, least, limit)
    if background not in (None, "random", *BACKGROUNDS):
        raise UsageError(f"background: {background!r} is not allowed; use white, black or random")
    try:
        target = target_for(device, precision)
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    data = scene_on(scene, target, downscale)
    asked = {
        "n_steps": n_steps, "batch_size": batch_size, "seed": seed, "background": background,
        "exposure": exposure,
    }  # fmt: skip
    given = None if config is None else read_config(config)
    training = prepared(data, given, asked, target, resume)
    return training.run_in(output, training.job.n_steps, progress, interrupted, view=view)


def scene_on(scene: str | Path, target: AbstractTarget, downscale: int | None) -> SceneData:
    """The scene, drawn or read."""
    kind = target.name.partition(":")[0]
    downscale = DEFAULT_DOWNSCALE[kind] if downscale is None else downscale
    if is_made(scene) and not Path(scene).exists():
        return made_scene(str(scene), target, max(SIZE // downscale, 1))
    if not Path(scene).exists():
        raise UsageError(
            f"'{scene}' is neither a folder with transforms.json nor one of the scenes that are "
            "made here: spheres, boxes, torus, thin, glossy, text, fog, many"
        )
    return read_scene(scene, downscale)


def prepared(
    data: SceneData, given: Any, asked: dict[str, Any], target: AbstractTarget, resume: Any
) -> FieldTraining:
    """A training at step 0, or the one that a snapshot holds, if it is one of this job."""
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
        learner.go_on(course.step, course.n_rays, course.n_samples, course.last_kept)
        learner.rng.state = course.rng_state
    return FieldTraining(data, job, learner, course)


@contextmanager
def told() -> Iterator[None]:
    """Around what reads a snapshot: what is wrong with it is the user's to know."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def learner_of(data: SceneData, job: Job, target: AbstractTarget) -> FieldLearner:
    """What learns a scene, from step 0."""
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
    """Job, course and counts of a snapshot; what is asked for must be what it has."""
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
    """A config with changes of it: objects are merged, everything else is replaced.

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
