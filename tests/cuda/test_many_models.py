"""Many models on a GPU come to what each comes to alone; bit for bit, if deterministic."""

import numpy as np
import pytest
from models import HASH, make_config, mlp

import numbanet
from emulator.device import shared_device
from numbanet.cuda.many import device as many_device
from numbanet.cuda.many.device import ManyDevice, blocks_of_each
from numbanet.cuda.memory.arrays import empty, to_device, zeros

ADAM = {"otype": "Adam", "learning_rate": 1e-2}
LOOKAHEAD = {"otype": "Lookahead", "n_steps": 2, "nested": ADAM}
N_MODELS, N = 3, 40


def config(optimizer=ADAM, deterministic=True):
    network = mlp("FullyFusedMLP", 16, 1, bias=optimizer is LOOKAHEAD)
    of_model = make_config(HASH, network, optimizer=optimizer)
    return {**of_model, "deterministic": deterministic}


def create(optimizer=ADAM, *, deterministic=True, n=N_MODELS, **options):
    device = shared_device()
    return numbanet.create_many(2, 3, config(optimizer, deterministic), n, device=device, **options)


def alone(k, optimizer=ADAM, *, deterministic=True, **options):
    own = config(optimizer, deterministic)
    return numbanet.create_from_config(2, 3, own, 1337 + k, shared_device(), **options)


def batch(seed=0):
    x = np.random.default_rng(seed).random((N_MODELS, N, 2), np.float32)
    return x, np.concatenate([x, x[..., :1] * x[..., 1:]], axis=-1)


def assert_same(models, k, one):
    found = models[k].trainer.tensors()
    for name, expected in one.trainer.tensors().items():
        np.testing.assert_array_equal(found[name], expected, err_msg=f"{k}: {name}")
    assert models.n_steps[k] == one.trainer.n_steps


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [(ADAM, "float16"), ({"otype": "EMA", "nested": ADAM}, "float16"), (LOOKAHEAD, "float32")],
    ids=["Adam", "EMA", "Lookahead, a kernel for each layer"],
)
def test_models_are_trained_as_if_alone(optimizer, precision):
    """On batches of their own and on one for all, of which some come again as a graph."""
    models = create(optimizer, precision=precision)
    singles = [alone(k, optimizer, precision=precision) for k in range(N_MODELS)]
    of_each, of_all = batch(), [each[0] for each in batch(1)]
    target = singles[0].network.target
    of_each, of_all = (list(map(target.from_host, given)) for given in (of_each, of_all))
    for is_shared in (False, False, True, True, False):
        x, y = of_all if is_shared else of_each
        losses = models.training_step(x, y)
        for k, one in enumerate(singles):
            expected = one.trainer.training_step(*((x, y) if is_shared else (x[k], y[k])))
            assert losses[k] == float(expected)
    outputs = models(of_each[0]).numpy()
    for k, one in enumerate(singles):
        assert_same(models, k, one)
        np.testing.assert_array_equal(outputs[k], one(of_each[0][k]).numpy())


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_tables_in_few_bits_are_those_of_a_model_alone(precision):
    own = {**config(), "encoding": {**HASH, "n_levels": 2, "compression": "OneBit"}}
    options = {"device": shared_device(), "precision": precision}
    models, (x, y) = numbanet.create_many(2, 3, own, N_MODELS, **options), batch()
    singles = [numbanet.create_from_config(2, 3, own, 1337 + k, **options) for k in range(N_MODELS)]
    for _ in range(2):
        models.training_step(x, y)
        for one, *each in zip(singles, x, y, strict=True):
            one.trainer.training_step(*each)
    outputs = models(x).numpy()
    for k, one in enumerate(singles):
        assert_same(models, k, one)
        np.testing.assert_array_equal(outputs[k], one(x[k]).numpy())


@pytest.mark.parametrize("otype", ["Novograd", "Shampoo"])
def test_optimizers_of_whole_matrices(otype):
    models = create({"otype": otype})
    x, y = batch()
    y[1, 0] = np.inf  # this model skips its first step
    with pytest.warns(RuntimeWarning, match=r"of 1 models are infinite or NaN \(1\)"):
        models.training_step(x, y).numpy()
    x, y = batch()
    models.training_step(x, y)
    for k in range(N_MODELS):
        one = alone(k, {"otype": otype})
        for _ in range(1 if k == 1 else 2):
            one.trainer.training_step(x[k], y[k])
        assert_same(models, k, one)
    np.testing.assert_array_equal(models.n_skipped_steps, [0, 1, 0])


def test_steps_in_any_order_of_sums_are_near_those_alone():
    """Of the default: the samples are shared out to other numbers of blocks."""
    models, one = create(deterministic=False), alone(2, deterministic=False)
    x, y = batch()
    losses = models.training_step(x, y)
    assert losses[2] == pytest.approx(float(one.trainer.training_step(x[2], y[2])), rel=1e-6)
    np.testing.assert_allclose(models.params.numpy()[2], one.network.params.numpy(), atol=1e-5)


def test_losses_are_read_when_they_are_asked_for():
    models = create()
    losses = models.training_step(*batch())
    before = shared_device().synchronizations
    models.training_step(*batch())
    assert losses.shape == (N_MODELS,)
    assert len(losses) == N_MODELS
    assert shared_device().synchronizations == before
    assert losses.argmin() == np.argmin(np.asarray(losses))
    assert (losses > 0).all()
    assert float(np.mean(losses)) == losses.mean()
    assert np.asarray(2 * losses, np.float32)[1] == np.float32(2 * losses[1])
    assert repr(losses).startswith("Losses([")
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(losses, copy=False)


def test_old_losses_are_read_before_their_places_are_needed(monkeypatch):
    monkeypatch.setattr("numbanet.cuda.many.models.HISTORY", 2)
    models = create()
    x, y = batch()
    losses = [models.training_step(x, y) for _ in range(3)]
    expected = np.array([each.numpy() for each in losses])
    models._many._training.history.device.zero(models._many._training.history.address, 64)
    np.testing.assert_array_equal([each.numpy() for each in losses], expected)
    assert len(models._many._unread) == 3


def test_a_step_that_overflows_is_taken_back():
    models = create({"otype": "SGD", "learning_rate": 1.0})
    models.learning_rates = [1e-3, 3e38, 1e-3]
    x, y = batch()
    y[1, :, 0] = 1e6
    before = models.params.numpy()
    with pytest.warns(RuntimeWarning, match="of 1 models"):
        models.training_step(x, y).numpy()
    np.testing.assert_array_equal(models.n_steps, [1, 0, 1])
    moved = (models.params.numpy() != before).any(axis=1)
    np.testing.assert_array_equal(moved, [True, False, True])


def test_rates_and_configs_of_each_model(tmp_path):
    rates, x, y = [1e-3, 1e-2, 1e-1], *batch()
    configs = [config({**ADAM, "learning_rate": rate}) for rate in rates]
    swept = numbanet.create_many(2, 3, configs, seeds=[5] * 3, device=shared_device())
    set_later = create(seeds=[5] * 3)
    set_later.learning_rates = rates
    for models in (swept, set_later):
        models.training_step(x[0], y[0])
    np.testing.assert_array_equal(swept.params.numpy(), set_later.params.numpy())
    assert np.ptp(swept.params.numpy(), axis=0).max() > 1e-2
    swept[-1].save(tmp_path / "last")
    loaded = numbanet.load(tmp_path / "last", device=shared_device())
    np.testing.assert_array_equal(loaded(x[0]).numpy(), swept(x[0])[2].numpy())


def test_parameters_are_given_and_empty_batches_step_nothing():
    models = create()
    values = models.params.numpy()
    models.params = values = values + values[::-1]
    np.testing.assert_array_equal(models.params.numpy(), values)
    one = alone(1)
    one.network.params = values[1]
    x, y = batch()
    np.testing.assert_array_equal(models(x[1])[1].numpy(), one(x[1]).numpy())
    losses = models.training_step(x[:, :0], y[:, :0])
    np.testing.assert_array_equal(losses, np.zeros(N_MODELS))
    np.testing.assert_array_equal(models.n_steps, np.zeros(N_MODELS))
    for wrong in (values[:2], values[:, :-1], values[0]):
        with pytest.raises(ValueError, match="params"):
            models.params = wrong
    with pytest.raises(IndexError):
        models[3]


def test_more_models_than_a_grid_has_blocks(monkeypatch):
    monkeypatch.setattr(many_device, "MOST_BLOCKS_Z", 2)
    models, one = create(), alone(2)
    x, y = batch()
    models.training_step(x, y)
    one.trainer.training_step(x[2], y[2])
    assert_same(models, 2, one)


def test_memory_of_all_models():
    device = ManyDevice(shared_device(), N_MODELS)
    array, other = zeros((5,), np.float32, device), empty((5,), np.float32, device)
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    device.write(array.address, values)
    device.copy(other.address + 4, array.address + 8, 8)
    device.zero(array.address + 8, 4)
    np.testing.assert_array_equal(device.read(other.address, (5,), "f4")[:, 1:3], values[:, 2:4])
    values[:, 2] = 0
    np.testing.assert_array_equal(device.read(array.address, (5,), "f4"), values)
    np.testing.assert_array_equal(array.numpy(), values[0])
    np.testing.assert_array_equal(device.array_of(array, 2).numpy(), values[2])
    device.copy_to_device(array.address, values[1])
    np.testing.assert_array_equal(device.read(array.address, (5,), "f4"), values[[1, 1, 1]])
    address = array.address
    del array
    assert device.place(address) == (address, 0)
    mine = to_device(values, shared_device())
    lent, again, of_all = device.lend(mine), device.lend(mine), device.lend(mine[:1])
    assert lent.address == again.address != of_all.address
    assert device.place(lent.address + 4) == (mine.address + 4, 20)
    assert device.place(of_all.address) == (mine.address, 0)
    others = [to_device(values, shared_device()) for _ in range(many_device.MOST_LENT)]
    assert len({device.lend(each).address for each in others}) == many_device.MOST_LENT
    assert device.place(lent.address) == (lent.address, 0)  # forgotten
    assert device.lend(mine).address != lent.address


def test_blocks_of_each():
    assert blocks_of_each(132, 256) == 1
    assert blocks_of_each(132, 1) == 132
    assert blocks_of_each(132, 3) == 44
    assert blocks_of_each(132, 140) > 1
    assert blocks_of_each(4, 10**6) == 1
