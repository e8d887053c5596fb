"""Gradients of the inputs in the fused kernel: as exact as halves allow, and as the chain's."""

import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, make_config, mlp
from test_fused import (
    COMPOSITE,
    DENSE,
    FREQUENCY,
    IDENTITY,
    ONE_BLOB,
    ROUNDING,
    Case,
    assert_fused,
    emulated,
    grid,
)
from test_user_components import ENCODING, run, user_registry  # noqa: F401 (applies here too)

import numbanet
from numbanet.cuda.memory.arrays import to_device

BLOB = {**ONE_BLOB, "n_dims_to_encode": 1}
MIXED = {**COMPOSITE, "nested": [BLOB, *COMPOSITE["nested"]]}

# name -> n_input_dims, n_output_dims, precision, encoding, network, loss
CASES = {
    "hash": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 64, 2), "RelativeL2"),
    "dense_3d": (3, 2, "bfloat16", grid(1, **DENSE), mlp("FullyFusedMLP", 32, 2, "Tanh"), "L2"),
    "entries_of_4": (2, 3, "float16", grid(4), mlp("FullyFusedMLP", 16, 1, "ReLU", "Sine"), "L2"),
    "frequency": (3, 16, "float16", FREQUENCY, mlp("FullyFusedMLP", 32, 1, "None", "Tanh"), "L2"),
    "one_blob": (2, 17, "bfloat16", ONE_BLOB, mlp("CutlassMLP", 32, 3, "Tanh"), "L2"),
    "identity": (5, 3, "float16", IDENTITY, mlp("CutlassMLP", 48, 2, "Sigmoid"), "L2"),
    "harmonics": (
        *(3, 3, "float16", {"otype": "SphericalHarmonics", "degree": 4}),
        *(mlp("FullyFusedMLP", 16, 2, "LeakyReLU"), "L2"),
    ),
    "composite": (6, 3, "float16", MIXED, mlp("FullyFusedMLP", 32, 1), "L2"),
}


def case_of(name, device, n=33):
    return Case(name, device, n, cases=CASES, n_candidates=20)


def outside(case):
    """Gradients of the outputs that are given."""
    return np.random.default_rng(3).normal(size=case.targets.shape).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_they_are_as_exact_as_halves_allow(cuda_device, name):
    """Beside gradients of parameters as without them."""
    case = case_of(name, cuda_device)
    (dl_dx, gradients), launches = case.launched(case.fused, case.input_gradients)
    assert_fused(launches, "training_to_inputs")
    case.assert_input_gradients(dl_dx, lambda y: case.loss_of(y)[1])
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


@pytest.mark.parametrize("name", ["hash", "one_blob", "composite"])
def test_the_chain_computes_the_same(cuda_device, name):
    case = case_of(name, cuda_device)
    of_chain, _ = case.input_gradients(case.engine(fused=False))
    dl_dx, _ = case.input_gradients(case.fused)
    assert_close(dl_dx, of_chain, 8 * ROUNDING[case.precision])


def test_the_cpu_computes_the_same(cuda_device):
    case = case_of("hash", cuda_device)
    sizes, config = (case.n_input_dims, case.n_output_dims), case.config
    cpu = numbanet.create_from_config(*sizes, config, device="cpu")
    cpu.network.params = case.params.astype(np.float32)
    on_cpu = np.empty_like(case.x)
    cpu.trainer.training_step(case.x, case.targets, dl_dinput=on_cpu, run_optimizer=False)
    dl_dx, _ = case.input_gradients(case.fused)
    assert_close(dl_dx, on_cpu, 8 * ROUNDING[case.precision])


@pytest.mark.parametrize("n", [0, 1, 31, 33, 257])
def test_any_batch_size(cuda_device, n):
    """Alone, from gradients of the outputs that are given."""
    case = case_of("hash", cuda_device, n)
    dl_dy = outside(case)
    dl_dx, _ = case.input_gradients(case.fused, dl_dy, with_params=False)
    exact, _ = case.twin.backward(case.x, case.params, dl_dy.astype(np.float64))
    assert_close(dl_dx, exact, 8 * ROUNDING["float16"])


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("with_params", [False, True])
def test_of_a_loss_or_given_with_parameters_or_without(cuda_device, is_given, with_params):
    case = case_of("hash", cuda_device)
    dl_dy = outside(case)
    dl_dx, gradients = case.input_gradients(case.fused, dl_dy if is_given else None, with_params)

    def of_outputs(y):
        return dl_dy.astype(np.float64) if is_given else case.loss_of(y)[1]

    case.assert_input_gradients(dl_dx, of_outputs)
    if with_params:
        case.assert_gradients(gradients, of_outputs)


@pytest.mark.parametrize("with_params", [False, True])
def test_a_block_takes_one_tile_after_another(pytestconfig, with_params):
    """Every number of theirs is written once, in whatever order; two runs are the same."""
    device = emulated(pytestconfig, n_multiprocessors=1, racecheck="global")
    case = case_of("hash", device, 300)
    dl_dy = outside(case)
    dl_dx, _ = case.input_gradients(case.fused, dl_dy, with_params)
    case.assert_input_gradients(dl_dx, lambda y: dl_dy.astype(np.float64))
    again, _ = case.input_gradients(case.fused, dl_dy, with_params)
    np.testing.assert_array_equal(again, dl_dx)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_with_its_sample(cuda_device, bad):
    case = case_of("hash", cuda_device)
    dl_dy = outside(case)
    expected, _ = case.input_gradients(case.fused, dl_dy)
    dl_dy[20] = bad
    dl_dx, gradients = case.input_gradients(case.fused, dl_dy)
    assert not np.isfinite(dl_dx[20]).any()
    assert not np.isfinite(gradients).all()
    others = np.arange(33) != 20
    np.testing.assert_array_equal(dl_dx[others], expected[others])


def test_dimensions_that_nobody_encodes(cuda_device):
    """Their gradients are zero."""
    nested = [{**HASH, "n_dims_to_encode": 2, "dims_to_encode_begin": 1}]
    config = make_config({"otype": "Composite", "nested": nested}, mlp("FullyFusedMLP", 16, 1))
    options = {"device": cuda_device, "precision": "float16", "fused": True}
    model = numbanet.create_from_config(4, 1, config, **options)
    x = np.random.default_rng(0).random((33, 4), np.float32)
    dl_dx = to_device(np.full(x.shape, np.nan, np.float32), cuda_device)
    model.trainer.training_step(x, np.ones((33, 1), np.float32), dl_dinput=dl_dx)
    assert dl_dx.numpy()[:, 1:3].all()
    assert not dl_dx.numpy()[:, [0, 3]].any()


def test_an_encoding_of_a_user(cuda_device):
    run(ENCODING)
    config = make_config({"otype": "Bumps", "n_features": 5}, mlp("FullyFusedMLP", 16, 1))
    x = np.random.default_rng(0).random((33, 2), np.float32)
    found = []
    for options in ({"device": "cpu"}, {"device": cuda_device, "precision": "float16"}):
        model = numbanet.create_from_config(2, 3, config, **options)
        found.append(model.network.target.to_host(model.input_gradient(1, x)))
    assert_close(found[1], found[0], 5e-3)
