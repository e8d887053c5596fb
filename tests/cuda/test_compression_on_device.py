"""Tables in few bits on CUDA: what two kernels write over the copy that the others read."""

import models
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_components import host, rounded
from test_compression import NAMES, create

from numbanet.cuda.memory.arrays import to_device
from numbanet.quantization import quantize


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_read_what_the_cpu_makes_of_the_parameters(cuda_device, name, precision):
    model = create(name, device=cuda_device, precision=precision)
    values = np.random.default_rng(0).normal(size=model.network.n_params).astype(np.float32)
    model.network.params = values
    expected = quantize(values, model.network.quantized)
    found = host(model.network.parameters.current())
    np.testing.assert_allclose(found, rounded(expected, precision), rtol=1e-2, atol=1e-6)
    if precision == "float32":
        np.testing.assert_allclose(found, expected, rtol=3e-5)
    again = host(model.network.parameters.converted(to_device(expected, cuda_device)))
    np.testing.assert_allclose(again, rounded(expected, precision), rtol=3e-5)


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_training_is_that_of_the_cpu(cuda_device, name, precision):
    """After each step, the copy is quantized anew; captured steps come again."""
    on_device = create(name, device=cuda_device, precision=precision)
    on_cpu = create(name)
    x, y = models.batch_of("hash", 64)
    on_its_device = [to_device(values, cuda_device) for values in (x, y)]  # at one address
    for _ in range(3):
        found, expected = (
            on_device.trainer.training_step(*on_its_device), on_cpu.trainer.training_step(x, y),
        )  # fmt: skip
        np.testing.assert_allclose(float(found), float(expected), rtol=1e-2)
        parameters = on_device.network.parameters
        expected = quantize(parameters.master.numpy(), on_device.network.quantized)
        found = host(parameters.copy)
        np.testing.assert_allclose(found, rounded(expected, precision), rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(on_device(x).numpy(), on_cpu(x), atol=5e-2)
