"""Training over ranks is training on all their samples; test_launches.py starts this on 2 and 4.

All ranks run the same tests. What is expected each computes by itself.
"""

import dataclasses

import numpy as np
import pytest
from models import HASH, make_config, mlp

import numbanet
from numbanet.communicator import Alone, RankError, even_bounds, sum_in_pairs

# Parameters enough for a part of every rank's, of which the last one is shorter.
TABLE = {**HASH, "log2_hashmap_size": 14, "base_resolution": 64}
ADAM = {"otype": "Adam", "learning_rate": 1e-2}
N = 96


def wrapped(otype, nested=ADAM, **options):
    return {"otype": otype, "nested": nested, **options}


OPTIMIZERS = {
    "Adam": ADAM,
    "SGD": {"otype": "SGD", "learning_rate": 1e-1},
    "Novograd": {"otype": "Novograd"},
    "Shampoo": {"otype": "Shampoo"},
    "EMA": wrapped("EMA"),
    "ExponentialDecay": wrapped("ExponentialDecay", decay_start=1, decay_interval=1),
    "Lookahead": wrapped("Lookahead", n_steps=2),
    "Average": wrapped("Average", n_samples=2),
    "Batched": wrapped("Batched", batch_size_multiplier=2),
}


def create(optimizer=ADAM, comm=None, **options):
    config = make_config(TABLE, mlp("FullyFusedMLP", 16, 1), optimizer=optimizer)
    return numbanet.create_from_config(2, 3, config, device="cpu", comm=comm, **options)


def batch(seed=0, n=N):
    x = np.random.default_rng(seed).random((n, 2), np.float32)
    return x, np.concatenate([x, x[:, :1] * x[:, 1:]], axis=1)


def unequal_rows(comm, n=N):
    """Rank 0 has nothing, and the last one most, if there are several."""
    bounds = [n * k**2 // comm.size**2 for k in range(comm.size)]
    bounds = [0, *bounds[1:], n] if comm.size > 1 else [0, n]
    return slice(bounds[comm.rank], bounds[comm.rank + 1])


def assert_same(one, other, tolerance=2e-6):
    """Sums are made in another order, so bits may differ."""
    for name, expected in other.trainer.tensors().items():
        found = one.trainer.tensors()[name]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("otype", OPTIMIZERS)
def test_steps_are_those_on_all_samples(comm, otype):
    many, one = create(OPTIMIZERS[otype], comm), create(OPTIMIZERS[otype])
    rows = unequal_rows(comm)
    for k in range(4):
        x, y = batch(k)
        loss = many.trainer.training_step(x[rows], y[rows])
        assert float(loss) == pytest.approx(float(one.trainer.training_step(x, y)), rel=1e-4)
    many.trainer.check_replicas()
    assert many.trainer.n_steps == 4
    assert_same(many, one, 1e-4 if otype == "Shampoo" else 5e-6)
    x, _ = batch(9)
    expected = one(x)
    np.testing.assert_allclose(many(x), expected, atol=1e-4)


def test_composite_optimizers_share_the_work(comm):
    n = create().network.network.n_params
    parts = [
        {**ADAM, "n_params_to_optimize": n},
        {"otype": "SGD", "n_params_to_optimize": create().network.n_params - n},
    ]
    many, one = (create({"otype": "Composite", "nested": parts}, each) for each in (comm, None))
    rows = comm.rows(N)
    for k in range(2):
        x, y = batch(k)
        many.trainer.training_step(x[rows], y[rows])
        one.trainer.training_step(x, y)
    assert_same(many, one)


def test_the_state_is_divided(comm):
    """Each rank keeps the moments of its own parameters alone."""
    many = create(comm=comm)
    n = many.network.n_params
    own = np.array([many.trainer.optimizer_state.shape[1]])
    assert int(comm.gather(own).sum()) == n
    assert own[0] <= -(-n // comm.size) + 4096


def test_gradients_are_accumulated_before_they_are_summed(comm):
    many, one = create(comm=comm), create()
    rows = unequal_rows(comm)
    for k in range(4):
        x, y = batch(k, N + 8 * k)
        mode = "overwrite" if k % 2 == 0 else "accumulate"
        mine = slice(rows.start, None if rows.stop == N else rows.stop)
        for model, of in ((many, mine), (one, slice(None))):
            model.trainer.training_step(x[of], y[of], run_optimizer=k % 2 == 1, gradient_mode=mode)
    assert_same(many, one)
    np.testing.assert_array_equal(many.trainer.n_steps, 2)


def test_gradients_of_ones_own_are_summed(comm):
    many, one = create(comm=comm), create()
    x, y = batch()
    rows = unequal_rows(comm)
    for model, of in ((many, rows), (one, slice(None))):
        for _ in range(2):
            _, context = model.network.forward(x[of])
            model.network.backward(context, y[of], input_gradient=False)
            assert float(model.trainer.optimizer_step()) == 0
    assert_same(many, one)
    many.trainer.check_replicas()
    with pytest.raises(ValueError, match="with pieces=4 only training_step"):
        create(comm=Alone(pieces=4)).trainer.optimizer_step()


def test_gradients_stay_those_of_the_own_samples(comm):
    many, one = create(comm=comm), create()
    x, y = batch()
    rows = comm.rows(N)
    many.trainer.training_step(x[rows], y[rows])
    one.trainer.training_step(x, y)
    total = sum_in_pairs(comm.gather(many.network.gradients))
    np.testing.assert_allclose(total, one.network.gradients, atol=1e-7)


@pytest.mark.parametrize("where", ["inputs", "targets"])
@pytest.mark.filterwarnings("ignore:the inputs, the loss or a gradient")
def test_what_is_not_finite_on_one_rank_skips_the_step_on_all(comm, where):
    many = create(comm=comm)
    x, y = batch()
    rows = comm.rows(N)
    many.trainer.training_step(x[rows], y[rows])
    before = many.trainer.tensors()
    before = {name: array.copy() for name, array in before.items()}
    bad = {"inputs": x, "targets": y}[where].copy()
    bad[-1] = np.nan  # of the last rank
    x_y = (bad, y) if where == "inputs" else (x, bad)
    many.trainer.training_step(*(each[rows] for each in x_y))
    assert (many.trainer.n_steps, many.trainer.n_skipped_steps) == (1, 1)
    for name, array in many.trainer.tensors().items():
        np.testing.assert_array_equal(array, before[name])
    many.trainer.training_step(x[rows], y[rows])
    assert many.trainer.n_steps == 2


@pytest.mark.filterwarnings("ignore:the inputs, the loss or a gradient")
def test_a_step_that_overflows_on_one_rank_is_taken_back_on_all(comm):
    many = create({"otype": "SGD", "learning_rate": 3e38, "l2_reg": 0.0}, comm)
    x, y = batch()
    before = many.network.params.copy()
    y[:, 0] = 1e6
    many.trainer.training_step(x[comm.rows(N)], y[comm.rows(N)])
    assert many.trainer.n_skipped_steps == 1
    np.testing.assert_array_equal(many.network.params, before)


def test_snapshots_load_on_any_number_of_ranks(comm, tmp_path_factory):
    (folder, *_) = comm.gather_text(str(tmp_path_factory.mktemp("snapshots")))
    many, x_y = create(comm=comm), batch()
    rows = comm.rows(N)
    many.trainer.training_step(*(each[rows] for each in x_y))
    many.save(f"{folder}/many", {"epoch": 3})
    one = numbanet.load(f"{folder}/many", device="cpu")
    assert one.metadata == {"epoch": 3}
    again = numbanet.load(f"{folder}/many", device="cpu", comm=comm)
    for name, array in many.trainer.tensors().items():
        for other in (one, again):
            np.testing.assert_array_equal(other.trainer.tensors()[name], array)
    for model in (many, again):
        model.trainer.training_step(*(each[rows] for each in x_y))
    one.trainer.training_step(*x_y)
    np.testing.assert_array_equal(again.network.params, many.network.params)
    assert_same(many, one)


def test_what_rank_0_cannot_write_is_told_on_all(comm, tmp_path):
    with pytest.raises(OSError if comm.rank == 0 else RankError):
        create(comm=comm).save(tmp_path / "no" / "such" / "folder")


@pytest.mark.parametrize("otype", ["Adam", "Novograd"])
def test_pieces_make_the_same_bits_on_any_number_of_ranks(comm, otype):
    """Those of one rank, which evaluates all eight pieces by itself."""
    mine = numbanet.distributed.init(getattr(comm, "_comm", None), timeout=60, pieces=8)
    many, one = create(OPTIMIZERS[otype], mine), create(OPTIMIZERS[otype], Alone(pieces=8))
    rows = comm.rows(N)
    for k in range(4):
        x, y = batch(k)
        options = {
            "gradient_mode": "accumulate" if k == 2 else "overwrite",
            "run_optimizer": k != 1,
        }
        losses = [
            model.trainer.training_step(x[of], y[of], **options)
            for model, of in ((many, rows), (one, slice(None)))
        ]
        assert float(losses[0]) == float(losses[1])
    for name, array in many.trainer.tensors().items():
        np.testing.assert_array_equal(array, one.trainer.tensors()[name], name)
    with pytest.raises(ValueError, match="multiple of"):
        many.trainer.training_step(*batch(n=8 // comm.size + 1))


def test_pieces_must_fit_the_ranks():
    with pytest.raises(ValueError, match="power of two"):
        Alone(pieces=6)


def only_with_others(comm):
    if comm.size == 1:
        pytest.skip("needs several ranks: test_launches.py starts them")


def test_different_calls_are_told_before_the_step(comm):
    only_with_others(comm)
    many = create(comm=comm)
    x, y = batch()
    many.trainer.training_step(x, y)
    before = many.network.params.copy()
    with pytest.raises(ValueError, match="rank 1 makes another step than rank 0"):
        many.trainer.training_step(x, y, run_optimizer=comm.rank != 1)
    if comm.rank == 1:
        many.trainer.learning_rate = 0.5
    with pytest.raises(ValueError, match="an option of the optimizer"):
        many.trainer.training_step(x, y)
    np.testing.assert_array_equal(many.network.params, before)
    many.trainer.learning_rate = 0.5
    many.trainer.training_step(x, y)
    assert many.trainer.n_steps == 2


def test_different_models_are_told_before_the_first_step(comm):
    only_with_others(comm)
    is_last = comm.rank == comm.size - 1
    x, y = batch()
    many = create(comm=comm, seed=2 if is_last else 1)
    with pytest.raises(ValueError, match=f"parameters of rank {comm.size - 1} differs.*one seed"):
        many.trainer.training_step(x, y)
    many = create({"otype": "SGD"} if is_last else ADAM, comm)
    with pytest.raises(ValueError, match=f"config of rank {comm.size - 1} differs"):
        many.trainer.training_step(x, y)
    many = create(comm=comm)
    many.network.params = np.zeros(many.network.n_params) + is_last
    with pytest.raises(ValueError, match="parameters of rank"):
        many.trainer.training_step(x, y)


def test_equal_batches_are_told_once(comm):
    """The steps are the same; only the first asks the others about theirs."""
    trusting = numbanet.distributed.init(
        getattr(comm, "_comm", None), timeout=60, equal_batches=True
    )
    many, one = create(comm=trusting), create(comm=comm)
    for k in range(3):
        x, y = batch(k)
        rows = comm.rows(N)
        losses = [model.trainer.training_step(x[rows], y[rows]) for model in (many, one)]
        assert float(losses[0]) == float(losses[1])
    np.testing.assert_array_equal(many.network.params, one.network.params)
    if comm.size > 1:
        x, y = batch(n=N + comm.rank)
        other = create(comm=trusting)
        for _ in range(2):  # no step was made yet that could be trusted
            with pytest.raises(ValueError, match="with equal_batches all have equally many"):
                other.trainer.training_step(x, y)


def test_replicas_that_differ_are_found(comm):
    only_with_others(comm)
    many = create(comm=comm)
    many.trainer.check_replicas()
    if comm.rank == 1:
        many.network.params[7] += 1e-3
    with pytest.raises(RankError, match=r"rank 1 of .* has other params than rank 0"):
        many.trainer.check_replicas()


def test_seeds_are_divided(comm):
    draws = comm.gather(comm.rng(5).random(4))
    assert len({row.tobytes() for row in draws}) == comm.size
    np.testing.assert_array_equal(draws[comm.rank], comm.rng(5).random(4))
    rows = comm.gather(np.array([comm.rows(10).start, comm.rows(10).stop]))
    assert rows[0, 0] == 0
    assert rows[-1, 1] == 10
    np.testing.assert_array_equal(rows[1:, 0], rows[:-1, 1])


@pytest.mark.parametrize("n", [1, 5, 5000])
def test_sums_are_those_of_all_ranks(comm, n):
    mine = np.random.default_rng(comm.rank).normal(size=n).astype(np.float32)
    values = [np.random.default_rng(k).normal(size=n).astype(np.float32) for k in range(comm.size)]
    np.testing.assert_array_equal(comm.reduce(mine), sum_in_pairs(values))
    bounds = even_bounds(n, comm.size, 2)
    own = slice(bounds[comm.rank], bounds[comm.rank + 1])
    np.testing.assert_array_equal(comm.reduce_part(mine, bounds), sum_in_pairs(values)[own])
    filled = np.full(n, -1.0, np.float32)
    filled[own] = mine[own]
    comm.fill(filled, bounds)
    expected = np.concatenate([values[k][bounds[k] : bounds[k + 1]] for k in range(comm.size)])
    np.testing.assert_array_equal(filled, expected)


def test_a_trainer_of_several_ranks_is_not_pickled(comm):
    trainer = create(comm=comm).trainer
    if comm.size > 1:
        with pytest.raises(TypeError, match="save it"):
            trainer.__reduce__()
    else:
        assert dataclasses.is_dataclass(trainer.optimizer)
        assert trainer.__reduce__()[1][3].keys() == {"params", "optimizer.state"}
