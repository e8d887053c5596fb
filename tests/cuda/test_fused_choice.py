"""Whether encoding and network become one kernel can be chosen."""

import gc
import weakref

import numpy as np
import pytest
from laws import assert_close
from models import batch_of, create, create_lively

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from emulator.device import EmulatedDevice, shared_device


def launches_of(device, call):
    """The names of the kernels that a call launches."""
    before = len(device.launches)
    call()
    return device.launches[before:]


def test_the_chain_computes_what_the_fused_kernel_does():
    device = shared_device()
    x, targets = batch_of("hash", 40)
    n_launches, outputs, losses = {}, [], []
    for fused in (None, True, False):
        model, _ = create_lively("hash", device=device, precision="float16", fused=fused)
        outputs.append(model(x).numpy())
        n_launches[fused] = len(launches_of(device, lambda m=model: m(x)))
        losses.append(float(model.trainer.training_step(x, targets)))
    assert n_launches[None] == n_launches[True] == 1 < n_launches[False]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=0, atol=5e-3 * np.abs(outputs[0]).max())
    assert losses[2] == pytest.approx(losses[0], rel=5e-3)


@pytest.mark.parametrize(
    ("name", "device", "precision", "message"),
    [
        ("hash", EmulatedDevice(), "float32", "float32, and GPUs before Ampere"),
        ("hash", EmulatedDevice((7, 5)), "float16", "float32, and GPUs before Ampere"),
        ("hash", "cpu", None, "needs CUDA"),
    ],
)
def test_what_has_no_fused_kernels_says_so(name, device, precision, message):
    with pytest.raises(ValueError, match=message):
        create(name, device=device, precision=precision, fused=True)


def test_a_model_that_cannot_be_fused_says_so():
    """Its 100 neurons are no multiple of 16."""
    x, targets = batch_of("identity", 3)
    model = create("identity", device=shared_device(), precision="float16", fused=True)
    with pytest.raises(ValueError, match="fused=True: inference of this model cannot be fused"):
        model(x)
    with pytest.raises(ValueError, match="fused=True: a step of this model cannot be fused"):
        model.trainer.training_step(x, targets)


def test_gradients_of_inputs_are_fused():
    """However they are asked for; alone, they leave those of the parameters as they are."""
    device, dl_dy = shared_device(), np.ones((40, 3), np.float32)
    x, targets = batch_of("hash", 40)
    found = {}
    for fused in (True, False):
        model, _ = create_lively("hash", device=device, precision="float16", fused=fused)
        network, trainer, before = model.network, model.trainer, len(device.launches)
        dl_dx = network.target.empty(*x.shape)
        trainer.training_step(x, targets, dl_dinput=dl_dx, run_optimizer=False)
        gradients = network.gradients.numpy()
        _, context = network.forward(x)
        of_outputs = network.backward(context, dl_dy, gradient_mode="ignore")
        of_one = model.input_gradient(0, x)
        np.testing.assert_array_equal(network.gradients.numpy(), gradients)
        found[fused] = [each.numpy() for each in (dl_dx, of_outputs, of_one)]
        n_fused = sum("training_to_inputs" in name for name in device.launches[before:])
        assert n_fused == (3 if fused else 0)
    for of_fused, of_chain in zip(found[True], found[False], strict=True):
        assert_close(of_fused, of_chain, 5e-3)


def test_memory_is_free_as_soon_as_nobody_needs_it():
    """Nothing waits for the garbage collector, of which GPUs' memory knows nothing."""
    model, _ = create_lively("hash", device=EmulatedDevice(), precision="float16")
    engine = weakref.ref(model.network.engine)
    gc.disable()
    try:
        del model
        assert engine() is None
    finally:
        gc.enable()
