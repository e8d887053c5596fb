"""Noise on the outputs of training steps: its numbers, its gradients, and that it goes on."""

import pickle
from types import SimpleNamespace

import models
import naive
import numpy as np
import pytest
from laws import assert_close

import numbanet
from numbanet.communicator import ALONE, Alone
from numbanet.perturbation import Perturbation

SIGMA = 0.3


class Twin:
    """Noise of one step after another, in float64."""

    def __init__(self, seed=1337):
        self.rng = naive.make_rng(seed, "bindings")

    def noise(self, shape):
        u = np.maximum(np.array([self.rng.next_float() for _ in range(np.prod(shape))]), 2.0**-24)
        return (np.sqrt(3) / np.pi * np.log(u / (1 - u))).reshape(shape)


def trainer_of(model, sigma=SIGMA, loss="L2", **options):
    optimizer = numbanet.create_optimizer({"otype": "SGD", "learning_rate": 0.1, "l2_reg": 0.0})
    loss = numbanet.create_loss({"otype": loss})
    return numbanet.Trainer(model, optimizer, loss, perturbation_sigma=sigma, **options)


def test_noise_has_the_mean_and_the_deviation_that_it_should():
    noise = Twin().noise((40000,))
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("loss", ["L2", "RelativeL2Luminance"])
def test_loss_and_gradients_are_those_of_the_perturbed_outputs(loss):
    """Those of a relative loss too, which is no loss of perturbed targets."""
    model, _ = models.create_lively("hash")
    network, twin = model.network, Twin(7)
    trainer = trainer_of(network, loss=loss, seed=7)
    x, targets = models.batch_of("hash", 33)
    of_twin = naive.loss({"otype": loss})
    for n in (33, 1, 20):
        y, context = network.forward(x[:n])
        perturbed = np.asarray(y, np.float64) + SIGMA * twin.noise(y.shape)
        values, gradients = of_twin(perturbed, targets[:n].astype(np.float64), 1.0)
        dl_dx = network.backward(context, gradients / y.size)
        expected = np.array(network.gradients)
        found = np.empty_like(x[:n])
        options = {"run_optimizer": False, "dl_dinput": found}
        value = trainer.training_step(x[:n], targets[:n], **options)
        assert float(value) == pytest.approx(values.mean(), rel=1e-5)
        assert_close(network.gradients, expected, 1e-5)
        assert_close(found, dl_dx, 1e-5)
    assert "perturbation_sigma" in str(numbanet.summary(trainer))


def test_levels_and_gradients_from_outside():
    """An external gradient stays as it is; the loss beside it is that of the perturbed outputs."""
    encoding = numbanet.create_encoding(2, models.HASH, device="cpu")
    encoding.params = np.random.default_rng(0).normal(size=encoding.n_params)
    trainer, twin, x = trainer_of(encoding), Twin(), models.batch_of("hash", 33)[0]
    y = np.asarray(encoding(x, max_level=0.5), np.float64)
    noise = SIGMA * twin.noise(y.shape)
    value = trainer.training_step(x, np.zeros_like(y), run_optimizer=False, max_level=0.5)
    assert float(value) == pytest.approx(((y + noise) ** 2).mean(), rel=1e-5)
    assert "with max_level" in str(numbanet.summary(trainer))
    y, context = encoding.forward(x)
    noise, dl_dy = SIGMA * twin.noise(y.shape), np.ones_like(y)
    encoding.backward(context, dl_dy)
    expected = np.array(encoding.gradients)
    value = trainer.training_step(x, np.zeros_like(y), run_optimizer=False, external_dl_dy=dl_dy)
    assert float(value) == pytest.approx(((np.asarray(y) + noise) ** 2).mean(), rel=1e-5)
    assert_close(encoding.gradients, expected, 1e-6)


def config():
    return {**models.config_of("hash"), "perturbation_sigma": SIGMA}


def test_training_goes_on_from_snapshots_and_pickles(tmp_path):
    """With the numbers that it would have had; other seeds have others."""
    x, targets = models.batch_of("hash", 33)
    model = numbanet.create_from_config(2, 3, config(), device="cpu")
    assert model.trainer.config()["perturbation_sigma"] == SIGMA
    first = [float(model.trainer.training_step(x, targets)) for _ in range(2)]
    model.save(tmp_path / "m")
    others = [numbanet.load(tmp_path / "m", device="cpu"), pickle.loads(pickle.dumps(model))]
    loaded = numbanet.create_from_config(2, 3, config(), device="cpu")
    loaded.load(tmp_path / "m")
    later = [float(model.trainer.training_step(x, targets)) for _ in range(2)]
    for other in (*others, loaded):
        assert [float(other.trainer.training_step(x, targets)) for _ in range(2)] == later
        np.testing.assert_array_equal(other.network.params, model.network.params)
    again = numbanet.create_from_config(2, 3, config(), device="cpu")
    assert [float(again.trainer.training_step(x, targets)) for _ in range(2)] == first
    seeded = trainer_of(again.network, seed=5)
    same = trainer_of(again.network)
    losses = [
        float(each.training_step(x, targets, run_optimizer=False)) for each in (seeded, same, same)
    ]
    assert len(set(losses)) == 3


def test_zero_is_what_there_was():
    model = numbanet.create_from_config(
        2, 3, {**models.config_of("hash"), "perturbation_sigma": 0}, device="cpu"
    )
    assert model.trainer.perturbation is None
    assert "perturbation_sigma" not in model.trainer.config()
    assert "perturbation_sigma" not in str(model.summary())


@pytest.mark.parametrize(
    "sigma", [-1, float("nan"), float("inf"), np.complex64(1), "much", True, None]
)
def test_what_is_no_deviation_is_refused(sigma):
    with pytest.raises(numbanet.ConfigError, match="perturbation_sigma"):
        numbanet.create_from_config(
            2, 3, {**models.config_of("hash"), "perturbation_sigma": sigma}, device="cpu"
        )
    network = models.create("hash").network
    with pytest.raises(ValueError, match="perturbation_sigma"):
        trainer_of(network, sigma)
    with pytest.raises(ValueError, match="seed"):
        trainer_of(network, seed=-1)
    with pytest.raises(numbanet.ConfigError, match="create_many has none"):
        numbanet.create_many(2, 3, config(), 2, device="cpu")


def test_ranks_have_noise_of_their_own_and_pieces_none():
    network, noise = models.create("hash").network, []
    for rank in (0, 1):
        found = Perturbation(network, SIGMA, 3, SimpleNamespace(rank=rank, pieces=None))
        noise.append(np.empty((50, 3), np.float32))
        found.perturb(np.zeros((50, 3), np.float32), noise[-1])
        found.restore(Perturbation(network, SIGMA, 3, ALONE).state)
        again = np.empty((50, 3), np.float32)
        found.perturb(np.zeros((50, 3), np.float32), again)
        np.testing.assert_array_equal(again, noise[-1])
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.3
    with pytest.raises(ValueError, match=r"perturbation_sigma: 0\.3 is not possible with pieces"):
        trainer_of(network, comm=Alone(pieces=4))
