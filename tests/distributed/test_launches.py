"""What needs several processes, which mpiexec starts: the tests of ranks, and what ends them."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import numbanet
from numbanet.distributed.launch import launch_of

HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def started(n, *arguments, **options):
    """The exit status and the output of n processes of Python."""
    if find_spec("mpi4py") is None or MPIEXEC is None:
        pytest.skip("needs mpi4py and mpiexec: pip install mpi4py mpich")
    environment = {
        "NUMBA_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path]),
    }
    done = subprocess.run(
        [MPIEXEC, "-n", str(n), sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=540, check=False,
        env={**os.environ, **environment}, **options,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("n", [2, 4])
def test_ranks(n, tmp_path, monkeypatch):
    tests = [HERE / "test_ranks.py"]
    if n == 2:
        tests.append(HERE / "test_ranks_on_gpus.py")
    monkeypatch.setenv("FOLDER_OF_RANKS", str(tmp_path))
    options = "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-x", "--tb=short"
    status, output = started(n, "-m", "pytest", *options, *tests, cwd=HERE.parents[1])
    assert status == 0, output[-8000:]
    assert output.count(" passed") == n
    assert "skipped" not in output


@pytest.mark.parametrize("way", ["raises", "is killed", "hangs"])
def test_a_rank_that_fails_ends_the_others_and_is_named(way, tmp_path):
    status, output = started(3, HERE / "failing_rank.py", way, tmp_path / "snapshot")
    assert status != 0
    if way == "raises":
        assert output.count("numbanet: rank 1 of 3 ends all ranks: ValueError") == 1, output
    if way == "hangs":
        assert output.count("rank 1 of 3 did not come within 2 s") >= 1, output
        assert "rank 0 of 3 ends all ranks" in output, output
    assert numbanet.load(tmp_path / "snapshot", device="cpu").trainer.n_steps == 3


def test_launchers_are_told_by_their_variables():
    assert launch_of({}) == ("", 0, 1)
    assert launch_of({"RANK": "3", "WORLD_SIZE": "8"}) == ("torchrun", 3, 8)
    of_slurm = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    assert launch_of(of_slurm) == ("srun", 1, 2)
    assert launch_of({**of_slurm, "PMI_RANK": "0", "PMI_SIZE": "4"})[1:] == (0, 4)
    for rank, size in (("4", "4"), ("-1", "4"), ("x", "4"), ("0", "0")):
        with pytest.raises(ValueError, match="torchrun: RANK="):
            launch_of({"RANK": rank, "WORLD_SIZE": size})


def test_a_launch_of_another_mpi_is_told(monkeypatch):
    pytest.importorskip("mpi4py")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(RuntimeError, match="started 4 processes, and mpi4py sees 1"):
        numbanet.distributed.init()


@pytest.mark.parametrize("options", [
    *({"timeout": value} for value in (0, "1", True, float("nan"), float("inf"), 1e10)),
    *({"pieces": value} for value in (3, True, 4.0, 0)), {"equal_batches": "no"},
], ids=str)  # fmt: skip
def test_arguments_are_checked(options):
    with pytest.raises(ValueError, match="is not allowed"):
        numbanet.distributed.init(**options)


def test_integers_of_numpy_are_numbers_of_pieces():
    assert numbanet.distributed.init(pieces=np.int64(4)).own_pieces == 4


def test_a_communicator_is_one_of_mpi4py():
    pytest.importorskip("mpi4py")
    with pytest.raises(TypeError, match="expected a communicator of mpi4py"):
        numbanet.distributed.init("world")


def test_the_sample_goes_on_from_its_snapshot_on_another_number_of_ranks(tmp_path):
    sample = HERE.parents[1] / "samples/learn_an_image_on_ranks.py"
    own = HERE.parents[1] / "samples/images/astronaut.png"
    config = tmp_path / "config.json"
    config.write_text('{"encoding": {"otype": "OneBlob"}, "network": {"n_neurons": 16}}')
    for n, n_steps in ((2, 3), (3, 5)):
        status, output = started(n, sample, own, config, n_steps, 300, cwd=tmp_path)
        assert status == 0, output
        assert f"step {n_steps}: loss" in output
    assert "from step 3" in output
    assert numbanet.load(tmp_path / "learned_on_ranks.safetensors", "cpu").trainer.n_steps == 5
