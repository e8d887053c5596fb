"""What several ranks do, each on a GPU of its own, or an emulated one and the host's memory."""

import gc

import numpy as np
import pytest
from models import HASH, make_config, mlp

import numbanet
from emulator.device import EmulatedDevice
from numbanet import replicas
from numbanet.communicator import Alone, RankError, sum_in_pairs
from numbanet.cuda.driver import device as driver
from numbanet.cuda.optimizer import over_ranks, rank_kernels
from numbanet.cuda.ranks.collectives import collectives
from numbanet.saved_training import SavedTraining
from numbanet.targets import device_of_rank, find_device

ADAM = {"otype": "Adam", "learning_rate": 1e-2}
N = 48


def create(device, comm=None, optimizer=ADAM, precision="float16", **grid):
    config = make_config({**HASH, **grid}, mlp("FullyFusedMLP", 16, 1), optimizer=optimizer)
    return numbanet.create_from_config(2, 3, config, device=device, precision=precision, comm=comm)


def batch(seed=0):
    x = np.random.default_rng(seed).random((N, 2), np.float32)
    return x, np.concatenate([x, x[:, :1] * x[:, 1:]], axis=1)


@pytest.fixture(scope="module")
def device(comm):
    if driver.is_available(comm.size - 1):
        return find_device(device_of_rank("cuda", comm))
    return EmulatedDevice()


@pytest.fixture(params=["sums", "parts"])
def way(request, monkeypatch):
    """Sums of whole vectors, or of parts; models of tests are too small for these."""
    monkeypatch.setattr(over_ranks, "LEAST", 0 if request.param == "parts" else 1 << 40)
    return request.param


@pytest.mark.filterwarnings("ignore:the inputs, the loss or a gradient")
def test_steps_are_those_on_all_samples(comm, device, way):
    """Unequal parts of a batch, and one that is skipped because of one rank."""
    precision = "float16" if way == "parts" else "float32"
    many, one = create(device, comm, precision=precision), create(device, precision=precision)
    bounds = [N * k**2 // comm.size**2 for k in range(comm.size)] + [N]
    rows = slice(bounds[comm.rank], bounds[comm.rank + 1])
    for k in range(2):
        x, y = batch(k)
        loss = many.trainer.training_step(x[rows], y[rows])
        assert float(loss) == pytest.approx(float(one.trainer.training_step(x, y)), rel=1e-2)
    tolerance = 1e-5 if precision == "float32" else 5e-3
    expected = one.trainer.tensors()
    for name, array in many.trainer.tensors().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-2, atol=tolerance, err_msg=name)
    x, y = batch()
    y[-1] = np.inf
    before = many.trainer.tensors()
    many.trainer.training_step(x[rows], y[rows])
    assert (many.trainer.n_steps, many.trainer.n_skipped_steps) == (2, 1)
    for name, array in many.trainer.tensors().items():
        np.testing.assert_array_equal(array, before[name])
    assert not many.network.gradients.numpy().any()
    many.trainer.check_replicas()
    np.testing.assert_array_equal(
        many.network.parameters.copy.numpy(),
        many.network.parameters.converted(many.network.parameters.master).numpy(),
    )
    n_own = many.trainer.optimizer_state.shape[1]
    total = int(comm.gather(np.array([n_own])).sum())
    is_divided = way == "parts" and comm.size > 1
    assert total == many.network.n_params * (1 if is_divided else comm.size)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_tables_in_few_bits_are_those_on_all_samples(comm, device, way, precision):
    options = {"precision": precision, "compression": "OneBit", "n_levels": 2}
    many, one = create(device, comm, **options), create(device, **options)
    rows = comm.rows(N)
    for k in range(3):
        x, y = batch(k)
        loss = many.trainer.training_step(x[rows], y[rows])
        assert float(loss) == pytest.approx(float(one.trainer.training_step(x, y)), rel=1e-2)
    many.trainer.check_replicas()
    parameters = many.network.parameters
    np.testing.assert_array_equal(
        parameters.copy.numpy(), parameters.converted(parameters.master).numpy()
    )
    tolerance = 1e-4 if precision == "float32" else 5e-3
    expected = one.network.params.numpy()
    np.testing.assert_allclose(many.network.params.numpy(), expected, rtol=1e-2, atol=tolerance)


def assert_same_bits(one, other):
    parameters, expected = one.network.parameters, other.network.parameters
    np.testing.assert_array_equal(parameters.current().numpy(), expected.current().numpy())
    for name, array in one.trainer.tensors().items():
        np.testing.assert_array_equal(array, other.trainer.tensors()[name], err_msg=name)


def test_ranks_keep_parts_of_the_parameters_until_they_ask_for_them(comm, device, monkeypatch):
    """Steps that gather copies equal those that gather the values, which `held` has lent."""
    monkeypatch.setattr(over_ranks, "LEAST", 0)
    many, held = create(device, comm), create(device, comm)
    params, parameters, is_shared = held.network.params, many.network.parameters, comm.size > 1

    def step_both(k):
        for model in (many, held):
            model.trainer.training_step(*(each[comm.rows(N)] for each in batch(k)))
        assert_same_bits(many, held)
        many.trainer.check_replicas()

    step_both(0)
    step_both(1)
    n_own = comm.gather(np.array([parameters.own.size, held.network.parameters.own.size]))
    n = many.network.n_params
    assert n_own.sum(axis=0).tolist() == [n, n * comm.size]
    saved, n_steps = many.trainer.tensors(), many.trainer.n_steps
    for model in (many, held):
        model.network.params = 0.5 * saved["params"][::-1]
    step_both(2)
    x, _ = batch()
    np.testing.assert_array_equal(many(x).numpy(), held(x).numpy())
    for model in (many, held):
        composition, trainer = model.network.composition, model.trainer
        trainer.restore(
            SavedTraining(composition, trainer.loss, trainer.optimizer, n_steps, 0, {}), saved
        )
    step_both(3)
    assert parameters.is_divided == is_shared
    for whole in (many.network.params, params):
        assert whole.shape == (n,)
        device.copy_to_device(whole.address, np.float32(0.25) * whole.numpy())
    assert not parameters.is_divided
    step_both(4)
    step_both(5)


def test_copies_of_parameters_that_differ_are_found(comm, device, monkeypatch):
    monkeypatch.setattr(over_ranks, "LEAST", 0)
    many = create(device, comm)
    many.trainer.training_step(*batch())
    if comm.size > 1:
        many.network.params = many.trainer.tensors()["params"] + comm.rank
        with pytest.raises(RankError, match=r"rank 1 of .* has other params than rank 0"):
            many.trainer.check_replicas()


@pytest.mark.parametrize("otype", ["Novograd", "Adam"])
def test_another_trainer_goes_on_with_all_parameters(comm, device, monkeypatch, otype):
    """Of which the first one's ranks have parts."""
    monkeypatch.setattr(over_ranks, "LEAST", 0)
    many, plain = create(device, comm), create(device, comm)
    params = plain.network.params
    for model in (many, plain):
        optimizer = create(device, None, {"otype": otype}).trainer.optimizer
        first = model.trainer
        other = numbanet.Trainer(model.network, optimizer, first.loss, comm=comm)
        for k, trainer in enumerate((first, other, first, other)):
            trainer.training_step(*batch(k))
    np.testing.assert_array_equal(many.network.params.numpy(), params.numpy())


def unequal_rows(comm, k):
    """The own rows, and all, fewer in each step; in the second, rank 0 has none."""
    n = N - 7 * k
    bounds = [n * each ** (k + 1) // comm.size ** (k + 1) for each in range(comm.size + 1)]
    if comm.size > 1 and k == 1:
        bounds[1] = 0
    return slice(bounds[comm.rank], bounds[comm.rank + 1]), slice(0, n)


@pytest.mark.parametrize("otype", ["Adam", "Novograd"])
def test_batches_of_other_sizes_are_weighted_on_the_device(comm, device, way, otype, monkeypatch):
    monkeypatch.setattr(rank_kernels, "MOST_BLOCKS", 2)  # whose threads weight several numbers
    optimizer = {"otype": otype}
    many = create(device, comm, optimizer, "float32")
    one = create(device, None, optimizer, "float32")
    for k in range(4):
        x, y = batch(k)
        own, of_all = unequal_rows(comm, k)
        dl_dinput = many.network.target.zeros(own.stop - own.start, 2)
        expected_dl_dinput = many.network.target.zeros(of_all.stop, 2)
        loss = many.trainer.training_step(x[own], y[own], dl_dinput=dl_dinput)
        of_one = one.trainer.training_step(x[of_all], y[of_all], dl_dinput=expected_dl_dinput)
        assert float(loss) == pytest.approx(float(of_one), rel=1e-4)
        expected = expected_dl_dinput.numpy()[own]
        np.testing.assert_allclose(dl_dinput.numpy(), expected, rtol=1e-3, atol=1e-6)
        total = sum_in_pairs(comm.gather(many.network.gradients.numpy()))
        np.testing.assert_allclose(total, one.network.gradients.numpy(), rtol=1e-3, atol=1e-5)
    many.trainer.check_replicas()
    for name, array in many.trainer.tensors().items():
        expected = one.trainer.tensors()[name]
        np.testing.assert_allclose(array, expected, rtol=1e-2, atol=1e-4, err_msg=name)
    before = many.trainer.tensors()
    loss = many.trainer.training_step(*(each[:0] for each in batch()))
    assert float(loss) == 0
    assert (many.trainer.n_steps, many.trainer.n_skipped_steps) == (4, 0)
    for name, array in many.trainer.tensors().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_pieces_make_the_same_bits_on_any_number_of_ranks(comm, device, precision):
    """Those of one rank, which evaluates all pieces by itself; some steps read few levels."""
    mine = numbanet.distributed.init(getattr(comm, "_comm", None), timeout=60, pieces=4)
    many = create(device, mine, precision=precision)
    one = create(device, Alone(pieces=4), precision=precision)
    rows = comm.rows(N)
    for k in range(4):
        x, y = batch(k)
        mode = {"gradient_mode": "accumulate" if k == 1 else "overwrite", "run_optimizer": k > 0}
        mode["max_level"] = 0.5 if k % 3 == 0 else None
        loss = many.trainer.training_step(x[rows], y[rows], **mode)
        assert float(loss) == float(one.trainer.training_step(x, y, **mode))
    for name, array in many.trainer.tensors().items():
        np.testing.assert_array_equal(array, one.trainer.tensors()[name], err_msg=name)
    np.testing.assert_array_equal(many.network.gradients.numpy(), one.network.gradients.numpy())
    plain = create(device, precision=precision)
    plain.trainer.training_step(*batch())
    one = create(device, Alone(pieces=4), precision=precision)
    one.trainer.training_step(*batch())
    gradients = (model.network.gradients.numpy() for model in (one, plain))
    np.testing.assert_allclose(*gradients, rtol=1e-2, atol=1e-4)


def test_hosts_are_asked_seldom(comm, device, monkeypatch):
    monkeypatch.setattr(replicas, "MOST_UNASKED", 2)
    many, asked = create(device, comm), []
    monkeypatch.setattr(many.trainer._replicas, "_key_of", lambda trainer: asked.append(1) or 1)
    for k in range(7):
        many.trainer.training_step(*batch(k))
    assert len(asked) == (3 if comm.size > 1 else 0)


def test_a_short_batch_is_not_what_others_are_measured_by(comm, device, monkeypatch):
    monkeypatch.setattr(replicas, "MOST_UNASKED", 2)
    trainer = create(device, comm).trainer
    sizes = [N, N, N, 7, N, *6 * [5]]
    found = [trainer._replicas.begin_step(trainer, n, True, "overwrite") for n in sizes]
    expected = [N, N, N, 7, N, N, 5, N, N, 5, 5] if comm.size > 1 else sizes
    assert found == [comm.size * n for n in expected]


def test_another_option_on_one_rank_is_told(comm, device):
    many = create(device, comm)
    x_y = batch()
    many.trainer.training_step(*x_y)
    many.trainer.learning_rate = 1e-3 if comm.rank == 0 else 1e-4
    if comm.size > 1:
        loss = many.trainer.training_step(*x_y)
        with pytest.raises(ValueError, match="ranks made different steps"):
            float(loss)
    many.trainer.learning_rate = 1e-3
    many.trainer.training_step(*x_y)
    assert many.trainer.n_steps == 2
    many.trainer.check_replicas()


@pytest.mark.parametrize("otype", ["Novograd", "EMA"])
def test_optimizers_that_need_everything(comm, device, way, otype):
    optimizer = {"otype": otype}
    many, one = create(device, comm, optimizer), create(device, optimizer=optimizer)
    rows = comm.rows(N)
    x, y = batch()
    many.trainer.training_step(x[rows], y[rows])
    one.trainer.training_step(x, y)
    many.trainer.check_replicas()
    expected = one(x).numpy()
    np.testing.assert_allclose(many(x).numpy(), expected, atol=1e-2)


@pytest.mark.filterwarnings("ignore:the inputs, the loss or a gradient")
def test_a_step_that_overflows_on_one_rank_is_taken_back_on_all(comm, device, way):
    precision = "float16" if way == "parts" else "float32"
    many = create(device, comm, {"otype": "SGD", "learning_rate": 3e38}, precision)
    before, copy = many.network.params.numpy(), many.network.parameters.copy.numpy()
    x, y = batch()
    y[:, 0] = 1e3 if way == "parts" else 1e6
    many.trainer.training_step(x[comm.rows(N)], y[comm.rows(N)])
    assert (many.trainer.n_steps, many.trainer.n_skipped_steps) == (0, 1)
    np.testing.assert_array_equal(many.network.parameters.current().numpy(), copy)
    np.testing.assert_array_equal(many.network.params.numpy(), before)
    many.trainer.check_replicas()


def test_models_of_ranks_leave_no_memory_behind(comm, device, monkeypatch):
    """Where GPUs share it, each model closes NCCL's windows of the one before."""
    monkeypatch.setattr(over_ranks, "LEAST", 0)
    one = create(device, precision="float32")
    one.trainer.training_step(*batch())
    expected, n_windows = one.network.params.numpy(), []
    for _ in range(4):
        many = create(device, comm, precision="float32")
        many.trainer.training_step(*(each[comm.rows(N)] for each in batch()))
        many.trainer.check_replicas()
        found = many.network.params.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-5)
        its_collectives = collectives(device, comm) if comm.size > 1 else None
        n_windows.append(len(getattr(its_collectives, "_windows", ())))
        del many
        gc.collect()
    assert n_windows[2] == n_windows[3]
