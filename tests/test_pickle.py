"""Models and trainers in other processes, where they are as they were here."""

import copy
import multiprocessing
import pickle

import models
import numpy as np
import pytest

import numbanet
from numbanet import registry, targets


@pytest.fixture(scope="module")
def spawned():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


def test_a_spawned_process_evaluates_and_trains_on(spawned):
    """To the last bit; the process is sent a model that has made its device functions."""
    model = models.create("hash")
    batch = models.batch_of("hash", 50)
    model.trainer.training_step(*batch)
    model.metadata["note"] = "kept"
    assert spawned.apply(trained_on, (model, batch)) == trained_on(model, batch)


def trained_on(model, batch):
    model.trainer.training_step(*batch)
    values = model.network(batch[0]), model.network.params, model.trainer.optimizer_state
    same = model.trainer.network is model.network
    return [np.asarray(each).tobytes() for each in values], model.trainer.n_steps, same


@pytest.mark.parametrize(
    "model",
    [
        numbanet.create_encoding(3, {"otype": "Frequency"}, alignment=16, device="cpu"),
        numbanet.create_network(3, 2, {"otype": "CutlassMLP", "n_neurons": 8}, device="cpu"),
    ],
    ids=["Encoding", "Network"],
)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_parameters_of_its_own(model, copied):
    found = copied(model)
    assert type(found) is type(model)
    x = np.random.default_rng(0).random((5, 3), np.float32)
    np.testing.assert_array_equal(found(x), model(x))
    before = np.array(model.params)
    found.params[:] = 7
    np.testing.assert_array_equal(model.params, before)


def test_a_model_of_a_gpu_comes_back_to_the_gpu(cuda_device, monkeypatch):
    model = models.create("one_blob", device=cuda_device, precision="float16")
    name = model.network.device
    monkeypatch.setattr(targets, "find_device", {name: cuda_device}.__getitem__)
    found = pickle.loads(pickle.dumps(model))
    assert (found.network.device, found.network.precision) == (name, "float16")
    mine, theirs = (each.network.target.to_host(each.network.params) for each in (model, found))
    np.testing.assert_array_equal(theirs, mine)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("loss", lambda loss: loss.row(3, False)),
        ("optimizer", lambda optimizer: optimizer.schedule),
    ],
    ids=["losses", "optimizers"],
)
def test_components_that_have_made_their_functions_are_pickled(kind, make):
    for component in registry.registered(kind).values():
        if component.__name__ != "Composite":  # which is of a number of parameters
            made = component()
            make(made)
            assert pickle.loads(pickle.dumps(made)) == made
