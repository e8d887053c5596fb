"""Ranks that torchrun starts, which speak through gloo."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import restarting_rank

import numbanet
from numbanet.communicator import Alone

HERE = Path(__file__).parent


def test_a_training_goes_on_bit_for_bit_after_a_rank_was_killed(tmp_path):
    path = tmp_path / "snapshot"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "--max-restarts", "1"),
            *(HERE / "restarting_rank.py", path),
        ],
        capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count("goes on from step 0") == output.count("goes on from step 4") == 2
    comm = Alone(pieces=2)
    alone = restarting_rank.create(comm)
    restarting_rank.train(alone, comm)
    assert output.count("steps a part") == 4
    found = numbanet.load(path, device="cpu").trainer.tensors()
    for name, expected in alone.trainer.tensors().items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
