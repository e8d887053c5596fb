"""The command learn-field: its arguments, and what it prints."""

import argparse
import shlex
import sys
from pathlib import Path

from numbanet.app.commands import SET, Command
from numbanet.app.learning_commands import LEARN_IMAGE
from numbanet.app.output import Output
from numbanet.app.run_learning import require
from numbanet.ctrl_c import INTERRUPTED

LEARN_FIELD = Command(
    help="learn a scene from pictures of it",
    description="Learn a scene from pictures taken around it: a radiance field in the manner of "
    "instant-ngp. Writes pictures of a held-out view after 10, 100, 1000, ... steps, a sheet of "
    "held-out views beside what was learned, curves, a report with their PSNR and SSIM, and a "
    "snapshot. Ctrl-C ends the training early and keeps what there is.",
    epilog="examples: numbanet learn-field torus --output learned; "
    "numbanet learn-field my_capture/transforms.json --downscale 4",
    arguments={
        "scene": {
            "metavar": "SCENE",
            "help": "a folder with transforms.json, such a file, or one of the scenes that are "
            "drawn here: spheres, boxes, torus, thin, glossy, text, fog, many",
        },
        "config": {
            "metavar": "CONFIG",
            "nargs": "?",
            "help": "sections density, colour and grid as JSON with comments; what it lacks is as "
            "for the device",
        },
        "--set": SET,
        "--steps": {
            "metavar": "N",
            "type": int,
            "help": "steps in all (default: 1000, on a GPU 5000)",
        },
        "--batch-size": {
            "metavar": "N",
            "type": int,
            "help": "samples per step that light reaches, about (default: 16384, on a GPU 262144)",
        },
        "--device": LEARN_IMAGE.arguments["--device"],
        "--precision": LEARN_IMAGE.arguments["--precision"],
        "--seed": {
            "metavar": "N",
            "type": int,
            "help": "of parameters and rays (default: 1337)",
        },
        "--output": LEARN_IMAGE.arguments["--output"],
        "--resume": LEARN_IMAGE.arguments["--resume"],
        "--downscale": {
            "metavar": "N",
            "type": int,
            "help": "make pictures so many times smaller (default: 2, on a GPU 1)",
        },
        "--background": {
            "choices": ("white", "black", "random"),
            "help": "behind pictures with an opacity (default: random, drawn anew for each ray)",
        },
        "--exposure": {
            "action": "store_true",
            "default": None,
            "help": "learn gains for each camera too",
        },
    },
)


def run_learn_field(arguments: argparse.Namespace, output: Output) -> int:
    require("samples")
    from numbanet.app.learn_field import learn_field
    from numbanet.app.overrides import overridden
    from numbanet.interrupt import Interrupt
    from numbanet.progress import SilentProgress, terminal_progress

    config = arguments.config
    if arguments.set:
        config = overridden(config or {}, arguments.set)
    progress = SilentProgress() if output.quiet else terminal_progress()
    notice = "finishing this step, then saving; Ctrl-C again to abort"
    with Interrupt(lambda: progress.say(notice)) as interrupt:
        result = learn_field(
            arguments.scene,
            config,
            n_steps=arguments.steps,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            device=arguments.device,
            precision=None if arguments.precision == "auto" else arguments.precision,
            output=arguments.output,
            resume=arguments.resume,
            downscale=arguments.downscale,
            background=arguments.background,
            exposure=arguments.exposure,
            progress=progress,
            interrupted=lambda: bool(interrupt),
        )
    output.say(
        f"{result.step} steps, held-out views {result.psnr:.2f} dB, SSIM {result.ssim:.3f}, "
        f"{result.rays_per_second / 1e3:.0f} k rays/s; wrote"
    )
    for path in result.files:
        output.say(f"  {path}")
    output.result(result.for_programs())
    if result.finished:
        return 0
    if not output.quiet:
        print(
            f"interrupted at step {result.step}; continue with: "
            f"{continuation(arguments, result.snapshot)}",
            file=sys.stderr,
        )
    return INTERRUPTED


def continuation(arguments: argparse.Namespace, snapshot: Path) -> str:
    """The command that goes on with a snapshot of an interrupted training."""
    words = ["numbanet", "learn-field", arguments.scene]
    words += [arguments.config] if arguments.config else []
    for assignment in arguments.set:
        words += ["--set", assignment]
    options = {
        "--device": None if arguments.device == "auto" else arguments.device,
        "--precision": None if arguments.precision == "auto" else arguments.precision,
        "--steps": arguments.steps,
        "--downscale": arguments.downscale,
        "--output": arguments.output,
        "--resume": snapshot,
    }
    for option, value in options.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
