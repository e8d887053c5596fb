"""Arguments of the commands of `numbanet`: one table per command."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """Texts of a command, and its arguments for argparse: names, and options of each.

    Args:
        help: a line for the list of commands.
        description: of its effect.
        epilog: an example.
        arguments: options of ArgumentParser.add_argument by the argument's name.
    """

    help: str
    description: str
    epilog: str | None = None
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this command, and those of all commands, to a parser."""
        for names, options in self.arguments.items():
            parser.add_argument(*names.split(), **options)
        how_much = parser.add_mutually_exclusive_group()
        for names, options in HOW_MUCH.items():
            how_much.add_argument(*names.split(), **options)
        parser.add_argument(
            "--json", action="store_true", help="print results as JSON, a line each"
        )


HOW_MUCH = {
    "-v --verbose": {
        "action": "store_true",
        "help": "say also what is compiled, and what is found in the cache",
    },
    "-q --quiet": {"action": "store_true", "help": "print errors only"},
}
SET = {
    "metavar": "PATH=VALUE",
    "action": "append",
    "default": [],
    "help": "change an option of the config, as in --set encoding.n_levels=8; may be given more "
    "than once",
}
DIMS = {
    "metavar": ("IN", "OUT"),
    "type": int,
    "nargs": 2,
    "default": (2, 3),
    "help": "widths of inputs and outputs (default: 2 3, an image)",
}


def compute_capability(architecture: str) -> tuple[int, int]:
    """Compute capability of an architecture, such as (9, 0) for sm_90."""
    found = re.fullmatch(r"sm_(\d+)(\d)", architecture)
    if not found:
        raise argparse.ArgumentTypeError(f"{architecture!r} is no architecture; one is sm_90")
    return int(found[1]), int(found[2])


COMPILE = Command(
    help="compile the kernels of a model ahead of time, for CUDA with or without a GPU",
    description="Compile every kernel that training and inference with this config need, "
    "and keep them in the kernel cache (numbanet doctor shows where it is; NUMBANET_CACHE_DIR "
    "moves it). They are found by the same versions of Python, numbanet and NVIDIA's toolkit; "
    "those for the CPU by processors of the same kind.",
    epilog="examples: numbanet compile config.json --arch sm_80 --arch sm_90; "
    "numbanet compile config.json --target cpu --torch",
    arguments={
        "config": {"metavar": "CONFIG", "help": "as for learn-image"},
        "--arch": {
            "metavar": "ARCH",
            "type": compute_capability,
            "action": "append",
            "help": "of the GPU, such as sm_80 or sm_90; may be given more than once",
        },
        "--target": {
            "default": "cuda",
            "choices": ("cuda", "cpu"),
            "help": "default: cuda, which needs --arch",
        },
        "--torch": {
            "action": "store_true",
            "help": "with --target cpu: also what a module of numbanet.torch needs",
        },
        "--precision": {
            "default": "float16",
            "choices": ("float32", "float16", "bfloat16"),
            "help": "of parameters and activations (default: float16)",
        },
        "--set": SET,
        "--dims": DIMS,
        "--batch-size": {"metavar": "N", "type": int, "default": 1 << 14, "help": "default: 16384"},
    },
)


EXPORT = Command(
    help="write a trained model as C, WGSL, GLSL, ONNX or one HTML file",
    description="Write the model of a snapshot as a program that needs no Python: a C99 header, a "
    "function of WGSL or GLSL ES 3.00 with a file of parameters, an ONNX graph, or an HTML file "
    "that shows the model.",
    epilog="examples: numbanet export model.safetensors model.h; numbanet export "
    "snapshot.safetensors --to html --precision int8 photo.html",
    arguments={
        "model": {"metavar": "MODEL", "help": "a snapshot, such as learn-image writes"},
        "output": {"metavar": "OUTPUT", "help": "the file to write; its ending tells the language"},
        "--to": {
            "choices": ("c", "wgsl", "glsl", "onnx", "html"),
            "help": "the language (default: .h, .wgsl, .glsl, .onnx or .html of OUTPUT)",
        },
        "--precision": {
            "default": "float32",
            "choices": ("float32", "float16", "int8"),
            "help": "that the parameters are rounded to (default: float32)",
        },
        "--name": {"help": "begins every name in the program (default: from OUTPUT)"},
        "--separate": {
            "action": "store_true",
            "help": "leave the parameters of a C header in a file beside it",
        },
        "--view": {
            "default": "auto",
            "choices": ("auto", "image", "surface", "volume", "field"),
            "help": "what an HTML file shows (default: by the numbers of inputs and outputs)",
        },
    },
)


CACHE = Command(
    help="show or clear the cache of compiled kernels",
    description="Show where compiled kernels are kept and how much they take, or remove them; "
    "they are compiled again when they are needed. NUMBANET_CACHE_DIR moves the cache.",
    arguments={
        "action": {
            "nargs": "?",
            "default": "show",
            "choices": ("show", "clear"),
            "help": "default: show",
        },
    },
)


DOCTOR = Command(
    help="show what was found on this machine and what can run",
    description="Show versions, processor, GPUs, CUDA parts and, for each target, whether it "
    "can run and what to do if not.",
    arguments={},
)


CONFIG = Command(
    help="check a config, show it with all defaults, or print the JSON Schema of configs",
    description="check: whether a config can be used; exit status 2 if not, 1 if it has options "
    "that nothing reads. show: every option, with its default where the config does not give it. "
    "schema: a JSON Schema, with which editors complete and check configs.",
    epilog="examples: numbanet config check config.json; "
    "numbanet config schema > numbanet.schema.json",
    arguments={
        "action": {"choices": ("check", "show", "schema")},
        "config": {"metavar": "CONFIG", "nargs": "?", "help": "as for learn-image"},
        "--set": SET,
        "--dims": DIMS,
    },
)


COMPLETION = Command(
    help="print a script that lets a shell complete commands and options",
    description="Print a script for a shell, which completes the commands of numbanet and their "
    'options with the Tab key. It needs shtab: pip install "numbanet[completion]".',
    epilog="example: numbanet completion bash > "
    "~/.local/share/bash-completion/completions/numbanet",
    arguments={"shell": {"choices": ("bash", "zsh", "tcsh")}},
)
