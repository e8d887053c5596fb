"""Arguments of the commands that learn something."""

import argparse
from typing import Any

from numbanet.app.commands import SET, Command

VIEW: dict[str, dict[str, Any]] = {
    "--view": {
        "action": "store_true",
        "help": "show what is learned on a page in the browser",
    },
    "--view-host": {
        "metavar": "HOST",
        "default": "127.0.0.1",
        "help": "where the page can be reached; 0.0.0.0 lets other machines see it and use its "
        "buttons (default: 127.0.0.1, this machine alone)",
    },
    "--view-port": {
        "metavar": "PORT",
        "type": int,
        "default": 8080,
        "help": "of the page; the next one that is free is taken (default: 8080)",
    },
    "--view-stay": {
        "action": argparse.BooleanOptionalAction,
        "help": "keep the page after the training, until Ctrl-C (default: in a terminal)",
    },
}


def config_argument(default: str) -> dict[str, Any]:
    return {
        "metavar": "CONFIG",
        "nargs": "?",
        "help": "loss, optimizer, encoding and network as JSON with comments, as for "
        f"tiny-cuda-nn (default: {default})",
    }


def training_options(samples: str) -> dict[str, dict[str, Any]]:
    """Options that all of them share; a step learns from a number of `samples`."""
    return {
        "--set": SET,
        "--steps": {
            "metavar": "N",
            "type": int,
            "default": 1000,
            "help": "steps in all (default: 1000)",
        },
        "--batch-size": {
            "metavar": "N",
            "type": int,
            "help": f"{samples} per step (default: 16384)",
        },
        "--device": {
            "default": "auto",
            "help": "auto, cpu or cuda (default: auto, a GPU where it can run)",
        },
        "--precision": {
            "default": "auto",
            "choices": ("auto", "float32", "float16", "bfloat16"),
            "help": "of parameters and activations (default: auto, float32 on the CPU, float16 on "
            "a GPU)",
        },
        "--seed": {
            "metavar": "N",
            "type": int,
            "help": f"of parameters and {samples} (default: 1337)",
        },
        "--output": {
            "metavar": "DIR",
            "default": "learned",
            "help": "where files go (default: learned)",
        },
        "--resume": {"metavar": "FILE", "help": "continue a snapshot.safetensors up to --steps"},
        **VIEW,
    }


ENDING = "Ctrl-C ends the training early and keeps what there is."

LEARN_IMAGE = Command(
    help="learn a photograph",
    description="Learn a photograph: train a network that maps positions to colours, and write "
    "pictures of what it knows after 10, 100, 1000, ... steps, a contact sheet, curves, a "
    f"report and a snapshot. {ENDING}",
    epilog="example: numbanet learn-image photo.jpg --steps 2000 --output learned",
    arguments={
        "image": {
            "metavar": "IMAGE",
            "help": "PNG, JPEG, TIFF, WebP or any other that Pillow reads by itself",
        },
        "config": config_argument("a hash grid and a small network"),
        **training_options("positions"),
        "--max-pixels": {
            "metavar": "N",
            "type": int,
            "help": "refuse larger images; N pixels take up to 24 N bytes (default: 100000000)",
        },
        "--white": {
            "metavar": "VALUE",
            "type": float,
            "help": "which value is white in an image with more than 8 bits a value (default: told "
            "from the file and its largest value)",
        },
    },
)

LEARN_SURFACE = Command(
    help="learn the signed distance of a mesh or a shape",
    description="Learn a surface: train a network that maps points to their signed distance, and "
    "write pictures of the surface that it knows, a mesh, curves, a report and a snapshot. "
    f"{ENDING}",
    epilog="examples: numbanet learn-surface bunny.ply --output learned; "
    "numbanet learn-surface torus --eikonal 0.01",
    arguments={
        "shape": {
            "metavar": "MESH_OR_SDF",
            "help": "an OBJ, PLY or STL file, or sphere, torus, box, capsule or links",
        },
        "config": config_argument("a hash grid and a small network"),
        **training_options("points"),
        "--eikonal": {
            "metavar": "WEIGHT",
            "type": float,
            "help": "of a term that makes gradients as long as 1 (default: 0)",
        },
        "--mesh-resolution": {
            "metavar": "N",
            "type": int,
            "default": 128,
            "help": "cells along each side for the mesh that is written, 0 for none (default: 128)",
        },
    },
)

LEARN_VOLUME = Command(
    help="compress a volume or a time series of volumes",
    description="Learn a volume: train a network that maps positions to values, and write slices "
    f"with maps of their errors, curves, a report and a snapshot. {ENDING}",
    epilog="example: numbanet learn-volume scan.npy --steps 2000 --output learned",
    arguments={
        "file": {
            "metavar": "FILE",
            "help": "an .npy file of real numbers, [z, y, x] or [t, z, y, x]",
        },
        "config": config_argument("a hash grid of an eighth of the file's size"),
        **training_options("voxels"),
    },
)

LEARN_FIELD = Command(
    help="learn a scene from pictures of it",
    description="Learn a scene from pictures taken around it: a radiance field in the manner of "
    "instant-ngp. Writes pictures of a held-out view after 10, 100, 1000, ... steps, a sheet of "
    "held-out views beside what was learned, curves, a report with their PSNR and SSIM, and a "
    f"snapshot. {ENDING}",
    epilog="examples: numbanet learn-field torus --output learned; "
    "numbanet learn-field my_capture/transforms.json --downscale 4",
    arguments={
        "scene": {
            "metavar": "SCENE",
            "help": "a folder with transforms.json, such a file, or one of the scenes that are "
            "drawn here: spheres, boxes, torus, thin, glossy, text, fog, many",
        },
        "config": {
            **config_argument("as for the device"),
            "help": "sections density, colour and grid as JSON with comments; what it lacks is as "
            "for the device",
        },
        **training_options("rays"),
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
