"""Derivatives with a max_level: those of tables whose finer levels are zeros."""

import numpy as np
import pytest
import test_composed_derivatives as composed
import test_derivatives
from laws import assert_close

import numbanet

SHARES = np.array([0.0, 0.4, 0.7, 1.0], np.float32)  # of 3 levels: 1, 2, 3, 3 are read
# name of a case -> what is wanted
CASES = {"composite": "laplacian", "two heads": "hessian"}


def created(name, device="cpu"):
    """A network with lively parameters, and inputs away from the borders of cells."""
    if name in test_derivatives.CASES:
        n_input_dims, n_output_dims, encoding, network, _ = test_derivatives.CASES[name]
        config = test_derivatives.make_config(encoding, network)
        network = numbanet.create_from_config(
            n_input_dims, n_output_dims, config, device=device, precision="float32"
        ).network
        cpu, twin, _ = test_derivatives.create(name)
        network.params = cpu.network.params
        return network, test_derivatives.models.inputs_of(twin, 22, 0)
    network, *_ = composed.created(name, device=device)
    return network, composed.inputs(3, 22)


def zeroed(network, share):
    """Parameters in which the levels that are not read are zeros, and which these are."""
    params, hidden = np.array(network.params), np.zeros(network.n_params, bool)
    for k, level in enumerate(network.levels):
        if k >= share * len(network.levels) + 1e-3:
            hidden[level.offset : level.offset + level.n_params] = True
    params[hidden] = 0
    return params, hidden


@pytest.mark.parametrize(("name", "wanted"), CASES.items())
def test_levels_that_are_not_read_are_zeros(name, wanted):
    network, x = created(name)
    shares = np.random.default_rng(0).choice(SHARES, len(x))
    found = network.derivatives(x, wanted=wanted, max_level=shares)
    assert_close(found.values, network(x, max_level=shares), 1e-5)
    keys, rng = ("values", "jacobian", wanted), np.random.default_rng(1)
    weights = {
        f"dl_d{key}": rng.normal(size=getattr(found, key).shape).astype(np.float32) for key in keys
    }
    found.backward(**weights)
    gradients, expected = np.array(network.gradients), np.zeros(network.n_params)
    for share in SHARES:
        rows = shares == share
        params, hidden = zeroed(network, share)
        of_rows = network.derivatives(x[rows], wanted=wanted, params=params)
        for key in keys:
            assert_close(getattr(found, key)[rows], getattr(of_rows, key), 1e-5)
        of_rows.backward(**{key: each[rows] for key, each in weights.items()})
        expected += np.where(hidden, 0, network.gradients)
    assert_close(gradients, expected, 1e-5)
    whole, plain = (network.derivatives(x, wanted=wanted, max_level=each) for each in (1, None))
    for key in keys:
        assert_close(getattr(whole, key), getattr(plain, key), 1e-6)
    assert network.derivatives(x[:0], max_level=[]).values.shape == (0, found.values.shape[1])


def test_what_is_refused():
    network, x = created("two heads")
    for wrong in (-1, np.full(22, np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="max_level"):
            network.derivatives(x, max_level=wrong)
    waves, _, _ = test_derivatives.create("tanh")
    with pytest.raises(TypeError, match="max_level: the model has no grid"):
        waves.network.derivatives(np.zeros((3, 2)), max_level=0.5)
