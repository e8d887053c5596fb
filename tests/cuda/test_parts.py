"""Models of several parts, and encodings by themselves, on the CUDA target: as on the CPU."""

import models
import numpy as np
import pytest
from composed_models import SGD, batch_of, created
from laws import assert_close
from models import HASH

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.memory.arrays import empty, to_device

TOLERANCE = {"float32": 2e-5, "float16": 1e-2}


@pytest.mark.parametrize(("name", "precision"), [("two heads", "float16"), ("shared", "float32")])
def test_composed_models_follow_the_cpu(cuda_device, name, precision):
    cpu, gpu = (
        created(name, **options)[0]
        for options in ({}, {"device": cuda_device, "precision": precision})
    )
    tolerance = TOLERANCE[precision]
    x, targets = batch_of(name, 70)
    assert_close(gpu(x).numpy(), cpu(x), tolerance)
    on_cpu, on_gpu = np.empty_like(x), empty(x.shape, np.float32, cuda_device)
    losses = [
        float(model.trainer.training_step(x, targets, run_optimizer=False, dl_dinput=dl_dx))
        for model, dl_dx in ((cpu, on_cpu), (gpu, on_gpu))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert_close(on_gpu.numpy(), on_cpu, 10 * tolerance)
    expected, found = cpu.network.named_gradients(), gpu.network.named_gradients()
    for key, of_cpu in expected.items():
        assert_close(found[key].numpy(), of_cpu, 10 * tolerance)
    for _ in range(3):
        losses = [float(model.trainer.training_step(x, targets)) for model in (cpu, gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=5 * tolerance)
    assert_close(gpu(x).numpy(), cpu(x), 5 * tolerance)
    (y, context), along = gpu.network.forward(x), np.ones_like(x)
    given = np.ones(y.shape, np.float32), along
    of_gpu = gpu.network.double_backward(context, *given)
    of_cpu = cpu.network.double_backward(cpu.network.forward(x)[1], *given)
    for found, expected in zip(of_gpu, of_cpu, strict=True):
        assert_close(found.numpy(), expected, 20 * tolerance)


def test_a_step_of_parts_allocates_nothing_and_waits_for_nothing(cuda_device):
    """After the first one, and where it is played again."""
    if not hasattr(cuda_device, "allocations"):
        pytest.skip("the counts are the emulated device's")
    model, *_ = created("shared", device=cuda_device, precision="float32")
    x, targets = (to_device(array, cuda_device) for array in batch_of("shared", 70))
    losses = [float(model.trainer.training_step(x, targets)) for _ in range(2)]
    before = cuda_device.allocations, cuda_device.synchronizations
    later = [model.trainer.training_step(x, targets) for _ in range(3)]
    assert (cuda_device.allocations, cuda_device.synchronizations) == before
    cpu, *_ = created("shared")
    expected = [float(cpu.trainer.training_step(*batch_of("shared", 70))) for _ in range(5)]
    assert [*losses, *map(float, later)] == pytest.approx(expected, rel=1e-3)


def test_an_encoding_trains_in_a_trainer_of_its_own(cuda_device):
    loss, optimizer = numbanet.create_loss({"otype": "L2"}), numbanet.create_optimizer(SGD)
    x, found = batch_of("two heads", 70)[0][:, :2].copy(), []
    for device in ("cpu", cuda_device):
        encoding = numbanet.create_encoding(2, HASH, device=device)
        encoding.params = np.random.default_rng(0).normal(size=encoding.n_params)
        trainer = numbanet.Trainer(encoding, optimizer, loss)
        targets = np.zeros((70, 8), np.float32)
        losses = [float(trainer.training_step(x, targets)) for _ in range(3)]
        found.append([*losses, *np.asarray(trainer.inference(x)).ravel()])
    assert_close(found[1], found[0], 5e-3)


def test_levels_appear_from_coarse_to_fine_as_on_the_cpu(cuda_device):
    cpu, gpu = (models.create_lively("hash", device=each)[0] for each in ("cpu", cuda_device))
    x, targets = models.batch_of("hash", 70)
    shares = np.random.default_rng(1).choice([0.0, 0.4, 0.5, 1.0], 70)
    assert_close(gpu(x, max_level=shares).numpy(), cpu(x, max_level=shares), 5e-3)
    losses = [
        float(model.trainer.training_step(x, targets, run_optimizer=False, max_level=shares))
        for model in (cpu, gpu)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 2e-2)
    (_, on_cpu), (_, on_gpu) = (each.network.forward(x, max_level=shares) for each in (cpu, gpu))
    expected = cpu.network.backward(on_cpu, targets)
    assert_close(gpu.network.backward(on_gpu, targets).numpy(), expected, 2e-2)
    assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 2e-2)
