"""Commands that learn something, between the command line and the jobs."""

import argparse
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numbanet.app.chosen_config import chosen_config
from numbanet.app.errors import UsageError
from numbanet.app.output import Output
from numbanet.ctrl_c import INTERRUPTED

PACKAGES = {  # extra: its module and package
    "samples": {"PIL": "pillow", "matplotlib": "matplotlib", "rich": "rich"},
    "view": {"viser": "viser"},
    "surfaces": {"trimesh": "trimesh", "skimage": "scikit-image"},
}


def require(*extras: str) -> None:
    """Raise UsageError if a package of these extras is missing."""
    missing = [
        package
        for extra in extras
        for module, package in PACKAGES[extra].items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        named = ",".join(extras)
        raise UsageError(f'missing: {", ".join(missing)}; pip install "numbanet[{named}]"')


def load(module: str) -> None:
    """Import a job's modules before it runs: from then on Ctrl-C waits for the end of a step."""
    importlib.import_module(module)


def view_of(arguments: argparse.Namespace) -> bool | tuple[str, int]:
    """Host and port of the page; False if none is wanted."""
    if not arguments.view:
        return False
    require("view")
    from numbanet.app.listening import check_place

    check_place(arguments.view_host, arguments.view_port)
    return arguments.view_host, arguments.view_port


def run_learn_image(arguments: argparse.Namespace, output: Output) -> int:
    require("samples")
    from numbanet.app.learn_image import DEFAULT_CONFIG, learn_image

    load("numbanet.app.image_job")
    config = chosen_config(arguments, lambda: DEFAULT_CONFIG)
    own = {"max_pixels": arguments.max_pixels, "white": arguments.white}
    return run(learn_image, arguments.image, config, own, arguments, output)


def run_learn_surface(arguments: argparse.Namespace, output: Output) -> int:
    require("samples", "surfaces")
    from numbanet.app.learn_surface import learn_surface
    from numbanet.app.surfaces.training import DEFAULT_CONFIG

    config = chosen_config(arguments, lambda: DEFAULT_CONFIG)
    own = {"eikonal": arguments.eikonal, "mesh_resolution": arguments.mesh_resolution}
    return run(learn_surface, arguments.shape, config, own, arguments, output)


def run_learn_volume(arguments: argparse.Namespace, output: Output) -> int:
    require("samples")
    from numbanet.app.learn_volume import learn_volume
    from numbanet.app.volume_file import read_volume
    from numbanet.app.volume_training import VolumeLearning

    default = lambda: VolumeLearning.config_for(read_volume(arguments.file))  # noqa: E731
    config = chosen_config(arguments, default)
    return run(learn_volume, arguments.file, config, {}, arguments, output)


def run_learn_field(arguments: argparse.Namespace, output: Output) -> int:
    require("samples")
    from numbanet.app.learn_field import learn_field

    load("numbanet.app.fields.preparing")
    config = chosen_config(arguments, dict)
    own = {name: getattr(arguments, name) for name in ("downscale", "background", "exposure")}
    return run(learn_field, arguments.scene, config, own, arguments, output)


def run(
    learn: Callable[..., Any],
    subject: str,
    config: Any,
    own: Mapping[str, Any],
    arguments: argparse.Namespace,
    output: Output,
) -> int:
    """Run a job and print its results; returns the exit status.

    Args:
        learn: the job's function.
        subject: its first argument: the data.
        own: arguments that only this job has, by name.
    """
    view = view_of(arguments)
    from numbanet.interrupt import Interrupt
    from numbanet.progress import SilentProgress, terminal_progress

    progress = SilentProgress() if output.quiet else terminal_progress()
    notice = "finishing this step, then saving; Ctrl-C again to abort"
    stay = arguments.view_stay
    with Interrupt(lambda: progress.over or progress.say(notice)) as interrupt:
        result = learn(
            subject,
            config,
            n_steps=arguments.steps,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            device=arguments.device,
            precision=None if arguments.precision == "auto" else arguments.precision,
            output=arguments.output,
            resume=arguments.resume,
            view=view,
            view_stay=sys.stderr.isatty() if stay is None else stay,
            progress=progress,
            interrupted=lambda: bool(interrupt),
            **own,
        )
    rate = result.samples_per_second / 1e6
    output.say(f"{result.step} steps, {result.measures}, {rate:.2f} M samples/s; wrote")
    for path in result.files:
        output.say(f"  {path}")
    output.result(result.for_programs())
    if result.finished:
        return 0
    if not output.quiet:
        words = continuation(learn, subject, own, arguments, result.snapshot)
        of = "" if arguments.steps is None else f" of {arguments.steps}"
        print(
            f"interrupted at step {result.step}{of}; continue with: {shlex.join(words)}",
            file=sys.stderr,
        )
    return INTERRUPTED


def continuation(
    learn: Callable, subject: str, own: Mapping[str, Any], arguments: Any, snapshot: Path
) -> list[str]:
    """Command that continues an interrupted training from its snapshot."""
    words = ["numbanet", learn.__name__.replace("_", "-"), subject]
    words += [arguments.config] if arguments.config else []
    for assignment in arguments.set:
        words += ["--set", assignment]
    options = {
        "device": None if arguments.device == "auto" else arguments.device,
        "precision": None if arguments.precision == "auto" else arguments.precision,
        **own,
        "steps": arguments.steps,
        "output": arguments.output,
        "resume": snapshot,
    }
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return words
