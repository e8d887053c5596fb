"""What the key of a kernel depends on: edited copies of the package, whose keys are compared."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numbanet
from numbanet import activations, inline_compiler
from numbanet.cpu import micro_kernel
from numbanet.cuda.toolchain import compiler
from numbanet.device import loops
from numbanet.encodings import frequency
from numbanet.losses import l1
from numbanet.optimizers import novograd
from numbanet.storage import access

TESTS = Path(__file__).parent
PACKAGE = Path(numbanet.__file__).parent


def keys_of(root):
    """Of the package in a folder: (target, model, kernel) -> key."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "kernel_keys.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(PACKAGE.parent)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    return {
        (*name.split(), kernel): key for name in kernels for kernel, key in kernels[name].items()
    }


@pytest.fixture(scope="module")
def keys():
    return keys_of(PACKAGE.parent)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "numbanet", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(root, module, old, new):
    file = root / Path(module.__file__).relative_to(PACKAGE.parent)
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def is_fused(target, kernel):
    return target == "cuda" and kernel.startswith("fused")


def evaluates(target, kernel):  # the model, with its encoding and network
    return is_fused(target, kernel) or kernel in ("training", "inference")


EDITS = {  # module, what is replaced, what by, and whose keys that changes
    "an encoding": (
        frequency,
        "HALF * quarter_turns",
        "-HALF * quarter_turns",
        lambda target, model, kernel: model == "frequency" and evaluates(target, kernel),
    ),
    "a loss": (
        l1,
        "ONE / pdf",
        "pdf",
        lambda target, model, kernel: model == "grid" and "training" in kernel,
    ),
    "an activation": (
        activations,
        "ONE / (ONE + exp(-x))",
        "ONE / (ONE - exp(-x))",
        lambda target, model, kernel: model == "one_blob" and evaluates(target, kernel),
    ),
    "an optimizer": (
        novograd,
        "(ONE - beta1)",
        "(ONE + beta1)",
        lambda target, model, kernel: model == "frequency" and "optimize" in kernel,
    ),
    "an overload for CUDA": (
        access,
        "return np.float32(array[i])",
        "return -np.float32(array[i])",
        lambda target, model, kernel: (
            (target == "cuda" and "fused_training" in kernel)
            or (model == "grid" and is_fused(target, kernel))
        ),
    ),
    "an intrinsic for the CPU": (
        micro_kernel,
        "value.align = 4",
        "value.align = 8",
        lambda target, model, kernel: target == "cpu" and evaluates(target, kernel),
    ),
    "a function that an intrinsic's code calls": (
        loops,
        'f"distinct',
        'f" distinct',
        lambda target, model, kernel: model == "frequency" and evaluates(target, kernel),
    ),
    "how device functions are compiled": (
        inline_compiler,
        "no_cfunc_wrapper = True",
        "no_cfunc_wrapper = False",
        lambda target, model, kernel: target == "cpu",
    ),
    "how kernels for CUDA are compiled": (
        compiler,
        "NEWEST_PTX = (9, 0)",
        "NEWEST_PTX = (8, 9)",
        lambda target, model, kernel: target == "cuda",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_stale_what_it_reaches(name, keys, copy):
    module, old, new, reaches = EDITS[name]
    edit(copy, module, old, new)
    edited = keys_of(copy)
    assert edited.keys() == keys.keys()
    changed = {kernel for kernel in keys if keys[kernel] != edited[kernel]}
    assert changed == {kernel for kernel in keys if reaches(*kernel)}


def test_comments_docstrings_and_places_keep_the_keys(keys, copy):
    for file in (copy / "numbanet").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        text = re.sub(r'^( *""")(?=[A-Z])', r"\1Said otherwise. ", text, flags=re.MULTILINE)
        text = re.sub(r"^( *)@", r"\1# A comment.\n\n\1@", text, flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")
    assert keys_of(copy) == keys
