"""Schedules of the learning rate: their factors, and what their options may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanet
from numbanet.optimizers import SGD, AdamW, CosineDecay, Piecewise, WarmUp
from numbanet.registry import ConfigError, create


def rates(optimizer, steps):
    """The learning rates after so many steps each."""
    hyperparams = np.array(optimizer.hyperparams(), np.float32)
    scalars, found = np.empty(optimizer.n_scalars, np.float32), []
    for s in steps:
        optimizer.schedule(np.int32(s + 1), hyperparams, scalars)
        found.append(float(scalars[0]))
    return np.array(found)


LAST = 2**31 - 3  # steps that may come before another one


def test_a_cosine_falls_from_the_rate_to_its_end():
    optimizer = CosineDecay(100, decay_start=20, end_factor=0.1, nested=SGD(2.0))
    found = rates(optimizer, [0, 20, 45, 70, 120, 121, LAST])
    quarter = 0.1 + 0.9 * (1 + np.sqrt(0.5)) / 2
    np.testing.assert_allclose(found, 2 * np.array([1, 1, quarter, 0.55, 0.1, 0.1, 0.1]), rtol=1e-6)
    assert rates(CosineDecay(7, nested=SGD(1.0)), [6, 7, LAST])[1:].tolist() == [0, 0]


def test_a_warm_up_ends_with_the_rate():
    found = rates(WarmUp(4, start_factor=0.5, nested=SGD(2.0)), [0, 1, 3, 4, LAST])
    np.testing.assert_allclose(found, [1.25, 1.5, 2, 2, 2], rtol=1e-6)
    assert rates(WarmUp(1, nested=SGD(1.0)), [0, 1]).tolist() == [1, 1]


def test_schedules_multiply():
    both = WarmUp(10, nested=CosineDecay(100, nested=SGD(3.0)))
    alone = rates(CosineDecay(100, nested=SGD(3.0)), [0, 4, 50])
    np.testing.assert_allclose(rates(both, [0, 4, 50]), alone * [0.1, 0.5, 1], rtol=1e-6)


points = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(0, 8, width=32)), min_size=1, max_size=5
).map(lambda found: tuple(sorted(found, key=lambda point: point[0])))


@given(points, st.integers(0, 1200))
def test_between_points_are_straight_lines(points, s):
    """As NumPy has them, with the later of two points of one step."""
    found = rates(Piecewise(points, nested=SGD(1.0)), [s])
    steps, factors = np.array(points).T
    same = steps == s
    expected = factors[same][-1] if same.any() else np.interp(s, steps, factors)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], r"points: 'a list of 0' is not allowed; use 1 to 64 points"),
        ([[0, 1.0]] * 65, r"points: 'a list of 65' is not allowed"),
        ([[0, 1.0], [5]], r"points\[1\]: expected a pair \[step, factor\], got \[5\]"),
        ([[0, 1.0], [2.5, 1.0]], r"points\[1\]: expected a pair"),
        ([[0, float("nan")]], r"points\[0\]: expected a pair"),
        ([[-1, 1.0]], r"points\[0\]: -1 is not allowed; use a step from 0 to"),
        ([[7, 1.0], [6, 1.0]], r"points\[1\]: 6 is not allowed"),
        (
            [[2**40, 1.0]],
            r"points\[0\]: 1099511627776 is not allowed; use a step from 0 to 2\^31 - 1",
        ),
        ([[0, -0.5]], r"points\[0\]: -0.5 is not allowed; use a factor from 0"),
        ("0", r"points: expected a list of pairs"),
    ],
)
def test_points_that_make_no_schedule(points, message):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{message}"):
        create("optimizer", {"otype": "Piecewise", "points": points}, default="none")


def test_a_factor_above_one_is_tried_on_a_copy_where_the_rate_is_bold():
    assert Piecewise(((0, 1.0),), nested=AdamW()).is_tame
    assert not Piecewise(((0, 2.0),), nested=AdamW()).is_tame


def test_schedules_with_other_numbers_share_their_code():
    """And those with other numbers of points do not."""
    first, second = (WarmUp(n, nested=CosineDecay(n)) for n in (10, 20))
    assert first.kernel_key() == second.kernel_key() != WarmUp().kernel_key()
    keys = {Piecewise(((0, 1.0),) * n).kernel_key() for n in (1, 2, 2)}
    assert len(keys) == 2


def test_a_trainer_changes_points_while_it_trains():
    schedule = {"otype": "Piecewise", "points": [[0, 1.0], [10, 0.0]], "nested": {"otype": "SGD"}}
    config = {"optimizer": schedule, "network": {"n_neurons": 16, "n_hidden_layers": 1}}
    model = numbanet.create_from_config(1, 1, config, device="cpu")
    model.trainer.update_hyperparams({"optimizer": {"points": [[0, 0.0]]}})
    before = model.network.params.copy()
    model.trainer.training_step(np.ones((8, 1)), np.ones((8, 1)))
    np.testing.assert_array_equal(model.network.params, before)
    assert model.trainer.learning_rate == 1e-3


# AdamW


def test_adam_w_decays_by_the_rate_alone():
    """As PyTorch's: not by the rate as it is corrected for the bias of the first moments."""
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.5)
    weights, state = np.ones(4, np.float32), np.zeros((3, 4), np.float32)
    layout = numbanet.optimizers.base.ParamLayout(4, ((2, 1),))
    step = optimizer.step(layout)
    scalars, matrices = np.full(1, 0.1, np.float32), np.zeros((0, 2), np.float32)
    moved = [step(i, weights[i], np.float32(i % 2), state, scalars, matrices) for i in range(4)]
    np.testing.assert_allclose(moved, [0.95, 0.85, 1.0, 0.9], rtol=1e-6)


@pytest.mark.parametrize("option", ["weight_decay", "non_matrix_weight_decay", "learning_rate"])
def test_adam_w_names_its_options(option):
    with pytest.raises(ValueError, match=rf"^{option}: -1.0 is not allowed"):
        AdamW(**{option: -1.0})
