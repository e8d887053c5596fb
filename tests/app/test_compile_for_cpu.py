"""`numbanet compile --target cpu`: a process that trains afterwards compiles nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbanet import code_store

ROOT = Path(__file__).parents[2]
CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "SGD"},
    "encoding": {"otype": "Identity"},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 48, "n_hidden_layers": 1},  # not elsewhere
}
BEGIN = """
import json, sys
import numpy as np
from numba.core import event
config = json.loads(sys.argv[1])
x, y = np.zeros((9, 2), np.float32), np.zeros((9, 1), np.float32)
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
"""
TRAIN = """
import numbanet
trainer = numbanet.create_from_config(2, 1, config, device="cpu").trainer
trainer.training_step(x, y)
trainer.training_step(x, None, external_dl_dy=y)
trainer.inference(x)
"""
TRAIN_MODULE = """
import torch
import numbanet.torch as tcnn
module = tcnn.NetworkWithInputEncoding(2, 1, config["encoding"], config["network"], device="cpu")
module(torch.from_numpy(x)).sum().backward()
"""
END = "print(len(recorder.buffer))"


def compiled_and_used(folder, options, use):
    """How many compilations there are in a process after the command has run in another one."""
    path = folder / "config.json"
    path.write_text(json.dumps(CONFIG))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["-m", "numbanet", "compile", str(path), "--target", "cpu", "--dims", "2", "1"]
    program = ["-c", BEGIN + use + END, json.dumps(CONFIG)]
    for arguments in ([*command, "--batch-size", "9", *options], program):
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if arguments is not program:
            assert f"kept in {code_store.directory()}" in done.stdout
    return int(done.stdout)


def test_training_compiles_nothing_after_it(tmp_path):
    assert compiled_and_used(tmp_path, [], TRAIN) == 0


def test_a_module_of_pytorch_compiles_nothing_after_it(tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch")
    assert compiled_and_used(tmp_path, ["--torch"], TRAIN_MODULE) == 0


def test_pytorch_that_is_not_installed(command, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = command("compile", config, "--target", "cpu", "--torch")
    assert code == 1
    assert 'PyTorch is not installed; pip install "numbanet[torch]"' in err
