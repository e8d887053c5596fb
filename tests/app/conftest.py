"""A small photograph and a small config, the same in all tests so that they share compiled code."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numbanet.app.command_line import main

ROOT = Path(__file__).parents[2]

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2},
    "encoding": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 8, "base_resolution": 4},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
}


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored():
    """Or the programs that tests start would ignore it too, in a script's background say."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("// a comment\n" + json.dumps(CONFIG))
    return path


@pytest.fixture
def photograph(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 30))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def command(capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def program():
    """The command as a user starts it, and the environment that finds this source tree."""
    return [sys.executable, "-m", "numbanet"], os.environ | {"PYTHONPATH": str(ROOT)}
