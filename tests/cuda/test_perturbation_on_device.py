"""Noise on the outputs of training steps on the CUDA target: the CPU's, in replayed graphs too."""

import models
import numpy as np
import pytest
from composed_models import batch_of, created
from laws import assert_close

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.memory.arrays import to_device


def trainer_of(network):
    optimizer = numbanet.create_optimizer({"otype": "SGD", "learning_rate": 0.1, "l2_reg": 0.0})
    loss = numbanet.create_loss({"otype": "RelativeL2"})
    return numbanet.Trainer(network, optimizer, loss, perturbation_sigma=0.3, seed=3)


def test_losses_follow_the_cpu_and_the_noise_is_another_one_in_each_step(cuda_device):
    """Nothing is allocated or waited for after the first steps."""
    cpu, gpu = (
        trainer_of(created("shared", **options)[0].network)
        for options in ({}, {"device": cuda_device, "precision": "float32"})
    )
    arrays = batch_of("shared", 70)
    x, targets = (to_device(array, cuda_device) for array in arrays)
    losses = [float(gpu.training_step(x, targets)) for _ in range(2)]
    counts = [getattr(cuda_device, name, None) for name in ("allocations", "synchronizations")]
    later = [gpu.training_step(x, targets) for _ in range(3)]
    assert gpu.config()["perturbation_sigma"] == 0.3
    assert counts == [
        getattr(cuda_device, name, None) for name in ("allocations", "synchronizations")
    ]
    expected = [float(cpu.training_step(*arrays)) for _ in range(5)]
    assert [*losses, *map(float, later)] == pytest.approx(expected, rel=1e-3)
    assert gpu.perturbation.state == cpu.perturbation.state
    still = [float(gpu.training_step(x, targets, run_optimizer=False)) for _ in range(2)]
    assert still[0] != still[1]
    gpu.perturbation.restore(cpu.perturbation.state)
    again = float(gpu.training_step(x, targets, run_optimizer=False))
    assert again == pytest.approx(still[0], rel=1e-5)


def test_gradients_of_a_network_follow_the_cpu(cuda_device):
    cpu, gpu = (
        trainer_of(models.create_lively("hash", device=each)[0].network)
        for each in ("cpu", cuda_device)
    )
    x, targets = models.batch_of("hash", 70)
    shares = np.random.default_rng(1).choice([0.4, 1.0], 70)
    for max_level in (None, shares):
        losses = [
            float(each.training_step(x, targets, run_optimizer=False, max_level=max_level))
            for each in (cpu, gpu)
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)
        assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 2e-2)
