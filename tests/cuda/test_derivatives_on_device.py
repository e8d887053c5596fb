"""Derivatives by the inputs on the CUDA target: those of the CPU, for any precision of a model."""

import re

import models
import numpy as np
import pytest
import test_composed_derivatives as composed
import test_derivatives
from laws import assert_close
from test_derivatives import CASES, batch, create

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet
from numbanet.cuda.chain import derivative_engine
from numbanet.cuda.driver.compile_only import CompileOnlyDevice

TOLERANCE = 1e-5  # relative to the largest number
N = 77


def on(name, device, precision="float32"):
    n_input_dims, n_output_dims, encoding, network, _ = CASES[name]
    config = test_derivatives.make_config(encoding, network)
    options = {"device": device, "precision": precision}
    return numbanet.create_from_config(n_input_dims, n_output_dims, config, **options)


def pair(name, cuda_device, precision="float32"):
    """The same model on both targets, its twin, and what is wanted of it."""
    (cpu, twin, wanted), gpu = create(name), on(name, cuda_device, precision)
    gpu.network.params = cpu.network.params
    return cpu, gpu, twin, wanted


def check(cpu, gpu, twin, wanted, n):
    x, weights = batch(twin, cpu.network.params.astype(np.float64), n, wanted)
    found, expected = (each.network.derivatives(x, wanted=wanted) for each in (gpu, cpu))
    for name in ("values", "jacobian", wanted):
        exact = getattr(expected, name)
        assert getattr(found, name).shape == exact.shape
        assert_close(getattr(found, name).numpy(), exact, TOLERANCE)
    for each in (found, expected):
        each.backward(*weights[:2], **{f"dl_d{wanted}": weights[2]})
    gradients = gpu.network.gradients.numpy()
    assert_close(gradients, cpu.network.gradients, TOLERANCE)
    return gradients


@pytest.mark.parametrize(
    ("name", "precision"), [("tanh", "float16"), ("grid", "float32"), ("composite", "bfloat16")]
)
def test_derivatives_are_the_cpus(cuda_device, name, precision):
    cpu, gpu, twin, wanted = pair(name, cuda_device, precision)
    for n in (0, 1, N):
        check(cpu, gpu, twin, wanted, n)
    for each in (cpu, gpu):
        float(each.trainer.optimizer_step())
    assert gpu.trainer.n_steps == 1
    assert_close(gpu.network.params.numpy(), cpu.network.params, TOLERANCE)


def test_deterministic_gradients_and_slabs(cuda_device, monkeypatch):
    cpu, gpu, twin, wanted = pair("grid", cuda_device)
    gpu.network.deterministic = True
    check(cpu, gpu, twin, wanted, 9)  # the buffers are made anew for more
    monkeypatch.setattr(derivative_engine, "MOST_ROWS", 200)  # 200 / 7 samples
    first, second = (check(cpu, gpu, twin, wanted, N) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_gradients_of_some_alone(cuda_device):
    cpu, gpu, twin, wanted = pair("tanh", cuda_device)
    x, weights = batch(twin, cpu.network.params.astype(np.float64), 9, wanted)
    names = "dl_dvalues", "dl_djacobian", f"dl_d{wanted}"
    for name, weight in zip(names, weights, strict=True):
        for each in (cpu, gpu):
            each.network.derivatives(x, wanted=wanted).backward(**{name: weight})
        assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, TOLERANCE)


@pytest.mark.parametrize(
    ("name", "wanted", "has_levels"),
    [
        ("two heads", "hessian", False),
        ("two heads", "hessian", True),
        ("shared", "laplacian", False),
    ],
)
def test_derivatives_of_composed_models_are_the_cpus(
    cuda_device, monkeypatch, name, wanted, has_levels
):
    (cpu, *_), (gpu, *_) = composed.created(name), composed.created(name, device=cuda_device)
    gpu.params = np.asarray(cpu.params)
    monkeypatch.setattr(derivative_engine, "MOST_ROWS", 150)
    for n, gpu.deterministic in ((0, False), (9, False), (33, True)):
        x, rng = composed.inputs(3, n), np.random.default_rng(n)
        more = {"max_level": rng.random(n)} if has_levels else {}
        found, expected = (each.derivatives(x, wanted=wanted, **more) for each in (gpu, cpu))
        weights = []
        for key in ("values", "jacobian", wanted):
            exact = getattr(expected, key)
            assert_close(getattr(found, key).numpy(), exact, TOLERANCE)
            weights.append(rng.normal(size=exact.shape).astype(np.float32))
        for each in (found, expected):
            each.backward(*weights[:2], **{f"dl_d{wanted}": weights[2]})
        assert_close(gpu.gradients.numpy(), cpu.gradients, TOLERANCE)


@pytest.mark.parametrize(
    "config",
    [
        {**models.SMOOTH, "compression": "Int8"},
        {"otype": "Permutohedral", "n_levels": 2, "log2_hashmap_size": 8},
    ],
    ids=["Grid", "Permutohedral"],
)
def test_derivatives_of_an_encoding_are_the_cpus(cuda_device, config):
    cpu, gpu = (
        numbanet.create_encoding(2, config, alignment=16, device=device)
        for device in ("cpu", cuda_device)
    )
    gpu.params = cpu.params = np.random.default_rng(0).normal(size=cpu.n_params)
    x = composed.inputs(2, 9)
    order = cpu.encoding.n_derivatives
    found, expected = (each.derivatives(x, order) for each in (gpu, cpu))
    assert_close(np.asarray(expected.values), cpu(x), 1e-6)  # with the tables that kernels read
    given = {}
    for key in ("values", "jacobian", "laplacian")[: 1 + order]:
        given[f"dl_d{key}"] = getattr(expected, key)
        assert_close(getattr(found, key).numpy(), getattr(expected, key), TOLERANCE)
    for each in (found, expected):
        each.backward(**given)
    assert_close(gpu.gradients.numpy(), cpu.gradients, TOLERANCE)


def test_inputs_that_are_not_finite(cuda_device):
    """Their derivatives are NaN, and the optimizer leaves such a step out."""
    model = on("tanh", cuda_device)
    x = np.random.default_rng(0).random((5, 2), np.float32)
    x[1, 0], x[3, 1] = np.nan, np.inf
    found = model.network.derivatives(x, wanted="hessian")
    for array in (found.values, found.jacobian, found.hessian):
        assert np.isnan(array.numpy()[[1, 3]]).all()
        assert np.isfinite(array.numpy()[[0, 2, 4]]).all()
    before = model.network.params.numpy()
    found.backward(dl_dhessian=found.hessian)
    with pytest.warns(RuntimeWarning, match="skipped"):
        float(model.trainer.optimizer_step())
    np.testing.assert_array_equal(model.network.params.numpy(), before)
    assert (model.trainer.n_steps, model.trainer.n_skipped_steps) == (0, 1)


@pytest.mark.parametrize("name", ["siren", "grid", "one_blob"])
def test_kernels_have_no_float64_and_no_local_memory(name):
    device = CompileOnlyDevice((9, 0), assembles=False)
    network, wanted = on(name, device).network, CASES[name][-1]
    x = np.zeros((5, network.n_input_dims), np.float32)
    for more in ({}, {"max_level": 0.5}) if network.levels else ({},):
        found = network.derivatives(x, wanted=wanted, **more)
        found.backward(found.values)
    assert len(device.kernels) > 5
    for kernel in device.kernels:
        assert not re.search(r"\.f64\b|\.local\b|\bcall\b", kernel.ptx.text), kernel.name
