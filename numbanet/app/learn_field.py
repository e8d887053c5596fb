"""Learn a scene from pictures of it: a radiance field, in the manner of instant-ngp."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numbanet.app.arguments import check_number, read_config
from numbanet.app.errors import UsageError
from numbanet.shown import shown

if TYPE_CHECKING:
    from numbanet.app.fields.field_training import Result
    from numbanet.progress import SilentProgress


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
    view_stay: bool = False,
    progress: "SilentProgress | None" = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> "Result":
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
        view: True for a page in the browser that shows the training, on this machine alone, or
            the host and port where it is.
        view_stay: keep that page after the training, until `interrupted` is true or Ctrl-C.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    from numbanet.app.fields.learner import BACKGROUNDS
    from numbanet.app.fields.preparing import prepared, scene_on, target_on

    n_steps, batch_size, seed, downscale = (
        None if value is None else check_number(name, value, least, limit)
        for name, value, least, limit in (
            ("steps", n_steps, 0, 2**31), ("batch size", batch_size, 1, 2**28),
            ("seed", seed, 0, 2**32), ("downscale", downscale, 1, 2**10),
        )
    )  # fmt: skip
    if background not in (None, "random", *BACKGROUNDS):
        raise UsageError(
            f"background: {shown(background)} is not allowed; use white, black or random"
        )
    if exposure not in (None, True, False):
        raise UsageError(f"exposure: {shown(exposure)} is not allowed; use True or False")
    target = target_on(device, precision)
    data = scene_on(scene, target, downscale)
    asked = {
        "n_steps": n_steps, "batch_size": batch_size, "seed": seed, "background": background,
        "exposure": exposure,
    }  # fmt: skip
    given = None if config is None else read_config(config)
    training = prepared(data, given, asked, target, resume)
    return training.run_in(
        output, training.job.n_steps, progress, interrupted, view=view, view_stay=view_stay
    )
