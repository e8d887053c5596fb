"""Snapshots on a GPU: nothing is lost where its memory is full."""

import models
import numpy as np
import pytest

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.errors import DeviceMemoryError

NAMES = "params", "state", "matrices", "statistics"
CONFIG = {**models.config_of("hash"), "optimizer": {"otype": "EMA", "nested": {"otype": "Shampoo"}}}


def create(device):
    return numbanet.create_from_config(2, 3, CONFIG, device=device, precision="float32")


def arrays_of(trainer):
    training = trainer._training
    return [trainer.network.params, training.state, training.matrices, training.statistics]


def copies_of(trainer):
    return [np.array(array) for array in arrays_of(trainer)]


@pytest.fixture
def trained():
    """A model on the CPU with numbers everywhere, and 5 steps."""
    model, rng = create("cpu"), np.random.default_rng(3)
    trainer = model.trainer
    for array in arrays_of(trainer):
        array[...] = rng.random(array.shape, np.float32)
    trainer.n_steps, trainer.n_skipped_steps = 5, 2
    return model


def test_a_state_that_would_make_nan_is_refused(cuda_device, trained, tmp_path):
    trained.trainer._training.state[1, 7] = -0.5
    trained.save(tmp_path / "snapshot")
    model = create(cuda_device)
    trainer = model.trainer
    before = copies_of(trainer)
    for load in (
        model.load,
        lambda path: numbanet.load(path, device=cuda_device, precision="float32"),
    ):
        with pytest.raises(numbanet.SnapshotError, match="1 second moments"):
            load(tmp_path / "snapshot")
    for mine, theirs in zip(copies_of(trainer), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    model.load(tmp_path / "snapshot", allow_nonfinite=True)
    np.testing.assert_array_equal(copies_of(trainer)[1], trained.trainer._training.state)


@pytest.fixture
def full(monkeypatch):
    """A function that leaves a device no memory."""

    def refuse(n_bytes):
        raise DeviceMemoryError(f"no {n_bytes} bytes")

    return lambda device: monkeypatch.setattr(device, "allocate", refuse)


def test_a_trainer_loads_where_no_memory_is_left(cuda_device, trained, full, tmp_path):
    trained.save(tmp_path / "snapshot")
    model = create(cuda_device)
    full(cuda_device)
    model.load(tmp_path / "snapshot")
    trainer, known = model.trainer, arrays_of(trained.trainer)
    for name, mine, theirs in zip(NAMES, copies_of(trainer), known, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert (trainer.n_steps, trainer.n_skipped_steps) == (5, 2)


def test_parameters_of_others_are_taken_where_no_memory_is_left(
    cuda_device, trained, full, tmp_path
):
    """What the optimizer knew before goes, to the last array of it."""
    trained.save(tmp_path / "snapshot")
    model = create(cuda_device)
    model.load(tmp_path / "snapshot")
    trainer = model.trainer
    params = np.arange(trainer.network.n_params, dtype=np.float32)
    full(cuda_device)
    numbanet.TcnnSnapshot(params).restore(trainer)
    found = dict(zip(NAMES, copies_of(trainer), strict=True))
    np.testing.assert_array_equal(found["params"], params)
    *others, average = found["state"]
    np.testing.assert_array_equal(average, params)
    for array in (*others, found["matrices"], found["statistics"]):
        assert not array.any()
    assert (trainer.n_steps, trainer.n_skipped_steps) == (0, 0)


def test_a_model_that_finds_no_memory_leaves_the_file_and_says_so(
    cuda_device, trained, full, tmp_path
):
    trained.save(tmp_path / "snapshot")
    full(cuda_device)
    with pytest.raises(DeviceMemoryError):
        numbanet.load(tmp_path / "snapshot", device=cuda_device, precision="float32")
    assert numbanet.load(tmp_path / "snapshot", device="cpu").trainer.n_steps == 5
