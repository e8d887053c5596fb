"""The command `numbanet`. A failure that is not a defect is one line and a non-zero exit code."""

import argparse
import importlib.util
import re
import shlex
import sys
import warnings

from numbanet.app.environment import version
from numbanet.app.errors import AppError, UsageError
from numbanet.app.streams import lossy_streams
from numbanet.ctrl_c import INTERRUPTED

SAMPLE_PACKAGES = {  # module: package
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "rich": "rich",
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = Parser(
        prog="numbanet",
        description="Small neural networks, trained and queried fast, in pure Python.",
        epilog="numbanet COMMAND --help tells more about a command.",
    )
    number = version("numbanet") or "(not installed)"
    top.add_argument("--version", action="version", version=f"numbanet {number}")
    commands = top.add_subparsers(metavar="COMMAND")

    learn = commands.add_parser(
        "learn-image",
        help="learn a photograph",
        description="Learn a photograph: train a network that maps positions to colours, and write "
        "pictures of what it knows after 10, 100, 1000, ... steps, a contact sheet, curves, a "
        "report and a snapshot. Ctrl-C ends the training early and keeps what there is.",
        epilog="example: numbanet learn-image photo.jpg --steps 2000 --output learned",
    )
    learn.add_argument(
        "image",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, WebP or any other that Pillow reads by itself",
    )
    learn.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="loss, optimizer, encoding and network as JSON with comments, as for tiny-cuda-nn "
        "(default: a hash grid and a small network)",
    )
    learn.add_argument(
        "--steps", metavar="N", type=int, default=1000, help="steps in all (default: 1000)"
    )
    learn.add_argument(
        "--batch-size", metavar="N", type=int, help="positions per step (default: 16384)"
    )
    learn.add_argument(
        "--device", default="auto", help="auto, cpu or cuda (default: auto, a GPU where it can run)"
    )
    learn.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="of parameters and activations (default: auto, float32 on the CPU, float16 on a GPU)",
    )
    learn.add_argument(
        "--seed", metavar="N", type=int, help="of parameters and positions (default: 1337)"
    )
    learn.add_argument(
        "--output", metavar="DIR", default="learned", help="where files go (default: learned)"
    )
    learn.add_argument(
        "--resume", metavar="FILE", help="continue a snapshot.safetensors up to --steps"
    )
    learn.add_argument(
        "--max-pixels",
        metavar="N",
        type=int,
        help="refuse larger images; N pixels take up to 24 N bytes (default: 100000000)",
    )
    learn.add_argument(
        "--white",
        metavar="VALUE",
        type=float,
        help="which value is white in an image with more than 8 bits a value (default: told from "
        "the file and its largest value)",
    )
    learn.set_defaults(run=run_learn_image)

    compiling = commands.add_parser(
        "compile",
        help="compile the CUDA kernels of a model ahead of time, with or without a GPU",
        description="Compile every CUDA kernel that training and inference with this config need, "
        "and keep them in the kernel cache (numbanet doctor shows where it is; NUMBANET_CACHE_DIR "
        "moves it). They are found by the same versions of Python, numbanet and NVIDIA's toolkit.",
        epilog="example: numbanet compile config.json --arch sm_80 --arch sm_90",
    )
    compiling.add_argument("config", metavar="CONFIG", help="as for learn-image")
    compiling.add_argument(
        "--arch",
        metavar="ARCH",
        type=compute_capability,
        action="append",
        required=True,
        help="of the GPU, such as sm_80 or sm_90; may be given more than once",
    )
    compiling.add_argument(
        "--precision",
        default="float16",
        choices=("float32", "float16", "bfloat16"),
        help="of parameters and activations (default: float16)",
    )
    compiling.add_argument(
        "--dims",
        metavar=("IN", "OUT"),
        type=int,
        nargs=2,
        default=(2, 3),
        help="widths of inputs and outputs (default: 2 3, an image)",
    )
    compiling.add_argument(
        "--batch-size", metavar="N", type=int, default=1 << 14, help="default: 16384"
    )
    compiling.set_defaults(run=run_compile)

    kept = commands.add_parser(
        "cache",
        help="show or clear the cache of compiled kernels",
        description="Show where compiled kernels are kept and how much they take, or remove them; "
        "they are compiled again when they are needed. NUMBANET_CACHE_DIR moves the cache.",
    )
    kept.add_argument(
        "action", nargs="?", default="show", choices=("show", "clear"), help="default: show"
    )
    kept.set_defaults(run=run_cache)

    doctor = commands.add_parser(
        "doctor",
        help="show what was found on this machine and what can run",
        description="Show versions, processor, GPUs, CUDA parts and, for each target, whether it "
        "can run and what to do if not.",
    )
    doctor.set_defaults(run=run_doctor)
    return top


def compute_capability(architecture: str) -> tuple[int, int]:
    """(9, 0) for sm_90."""
    found = re.fullmatch(r"sm_(\d+)(\d)", architecture)
    if not found:
        raise argparse.ArgumentTypeError(f"{architecture!r} is no architecture; one is sm_90")
    return int(found[1]), int(found[2])


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    with lossy_streams() as output:
        exit_code = run(sys.argv[1:] if argv is None else argv)
        output.flush()
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            reason = output.error.strerror or output.error
            exit_code = complain(f"cannot write the output: {reason}", exit_code or 1)
        # else, whoever read the output, as in `numbanet doctor | head`, has enough
        return exit_code


def run(argv: list[str]) -> int:
    try:
        arguments = parser().parse_args(argv)
        if not hasattr(arguments, "run"):
            parser().print_help()
            return UsageError.exit_code
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            warnings.simplefilter("default", UserWarning)
            return arguments.run(arguments)
    except SystemExit as ending:  # of --help and --version
        return int(ending.code or 0)
    except AppError as error:
        return complain(str(error), error.exit_code)
    except OSError as error:
        return complain(str(error), 1)
    except MemoryError as error:
        return complain(f"not enough memory: {error}", 1)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)


def complain(text: str, exit_code: int) -> int:
    line = " ".join(text.split())
    print(f"numbanet: error: {line}", file=sys.stderr)
    return exit_code


def show_warning(message, category, filename, line_number, file=None, line=None):
    print(f"numbanet: warning: {message}", file=sys.stderr)


def require_sample_packages() -> None:
    missing = [
        package
        for module, package in SAMPLE_PACKAGES.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UsageError(f'missing: {", ".join(missing)}; pip install "numbanet[samples]"')


def run_learn_image(arguments: argparse.Namespace) -> int:
    require_sample_packages()
    from numbanet.app.interrupt import Interrupt
    from numbanet.app.learn_image import learn_image
    from numbanet.app.progress import terminal_progress

    progress = terminal_progress()
    notice = "finishing this step, then saving; Ctrl-C again to abort"
    with Interrupt(lambda: progress.say(notice)) as interrupt:
        result = learn_image(
            arguments.image,
            arguments.config,
            n_steps=arguments.steps,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            device=arguments.device,
            precision=None if arguments.precision == "auto" else arguments.precision,
            output=arguments.output,
            resume=arguments.resume,
            max_pixels=arguments.max_pixels,
            white=arguments.white,
            progress=progress,
            interrupted=lambda: bool(interrupt),
        )
    print(
        f"{result.step} steps, {result.psnr:.2f} dB, "
        f"{result.samples_per_second / 1e6:.2f} M samples/s; wrote"
    )
    for path in result.files:
        print(f"  {path}")
    if result.finished:
        return 0
    again = ["numbanet", "learn-image", arguments.image]
    again += [arguments.config] if arguments.config else []
    options = {
        "--max-pixels": arguments.max_pixels,
        "--white": arguments.white,
        "--steps": arguments.steps,
        "--output": arguments.output,
        "--resume": result.snapshot,
    }
    for option, value in options.items():
        again += [] if value is None else [option, str(value)]
    print(
        f"interrupted at step {result.step} of {arguments.steps}; "
        f"continue with: {shlex.join(again)}",
        file=sys.stderr,
    )
    return INTERRUPTED


def run_compile(arguments: argparse.Namespace) -> int:
    from numbanet.app.compile_kernels import compile_kernels
    from numbanet.app.interrupt import cleaning_up

    lines = compile_kernels(
        arguments.config,
        arguments.arch,
        precision=arguments.precision,
        dims=tuple(arguments.dims),
        batch_size=arguments.batch_size,
    )
    with cleaning_up():
        for line in lines:
            print(line, flush=True)
    return 0


def run_cache(arguments: argparse.Namespace) -> int:
    from numbanet.app import kernel_files

    if arguments.action == "clear":
        print(kernel_files.remove_all())
    else:
        print(*kernel_files.show(), sep="\n")
    return 0


def run_doctor(arguments: argparse.Namespace) -> int:
    from numbanet.app.doctor import doctor

    for subject, finding in doctor():
        print(f"{subject:>14}  {finding}" if subject else f"\n{finding}")
    return 0
