"""`loss`: a training step on tensors, against the Trainer's."""

import models
import numpy as np
import pytest
from laws import assert_close
from models import MODELS

import numbanet

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402


def make(name):
    """A module and numbanet's own model with the same parameters."""
    model, _ = models.create_lively(name)
    n_input_dims, n_output_dims, config = MODELS[name]
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"], device="cpu"
    )
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(model.network.params))
    return module, model


@pytest.mark.parametrize("name", ["hash", "smooth", "one_blob", "linear"])
@pytest.mark.parametrize("n", [0, 1, 33, 257])
@pytest.mark.parametrize("has_pdf", [False, True])
def test_value_and_gradients_are_the_trainers(name, n, has_pdf):
    """Bit for bit: the same kernel computes."""
    module, model = make(name)
    x, targets = models.batch_of(name, n)
    pdf = np.linspace(0.5, 2, targets.size, dtype=np.float32).reshape(targets.shape)
    dl_dx = np.empty_like(x)
    expected = model.trainer.training_step(
        x, targets, pdf if has_pdf else None, run_optimizer=False, dl_dinput=dl_dx
    )
    inputs = torch.from_numpy(x).requires_grad_()
    loss = registered_loss(model)
    value = module.loss(
        inputs, torch.from_numpy(targets), loss, torch.from_numpy(pdf) if has_pdf else None
    )
    assert value.shape == ()
    assert value.item() == np.float32(float(expected))
    value.backward()
    np.testing.assert_array_equal(inputs.grad.numpy(), dl_dx)
    np.testing.assert_array_equal(module.params.grad.numpy(), model.network.gradients)


def registered_loss(model):
    return model.trainer.config()["loss"]


def test_the_default_is_relative_l2():
    module, _ = make("hash")
    x, targets = map(torch.from_numpy, models.batch_of("hash", 33))
    y = module(x)
    by_hand = ((y - targets) ** 2 / (y.detach() ** 2 + 0.01)).mean()
    by_hand.backward()
    expected, module.params.grad = module.params.grad, None
    value = module.loss(x, targets)
    value.backward()
    torch.testing.assert_close(value, by_hand)
    assert_close(module.params.grad, expected, 1e-5)


def test_gradients_scale_with_that_of_the_loss():
    module, _ = make("hash")
    x, targets = map(torch.from_numpy, models.batch_of("hash", 33))
    module.loss(x, targets, "L1").backward()
    expected, module.params.grad = module.params.grad, None
    (3 * module.loss(x, targets, "l1") - 1).backward()
    assert_close(module.params.grad, 3 * expected, 1e-6)


def test_only_what_is_needed_is_differentiated():
    module, _ = make("hash")
    x, targets = map(torch.from_numpy, models.batch_of("hash", 33))
    with torch.no_grad():
        value = module.loss(x, targets)
    assert not value.requires_grad
    module.params.requires_grad_(False)
    assert not module.loss(x, targets).requires_grad
    x.requires_grad_()
    module.loss(x, targets).backward()
    assert x.grad.abs().max() > 0
    assert module.params.grad is None


def test_training_steps_are_the_trainers():
    """With numbanet's Adam on one side and PyTorch's on the other."""
    module, model = make("smooth")
    adam = numbanet.create_optimizer({"otype": "Adam", "learning_rate": 1e-2, "l2_reg": 0.0})
    options = {"skip_zero_grad_non_matrix_params": False, "l2_reg": 0.0}
    model.trainer.update_hyperparams({"optimizer": options})
    epsilon = model.trainer.optimizer.epsilon
    assert adam.beta1 == 0.9
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=epsilon)
    for seed in range(5):
        x, targets = models.batch_of("smooth", 257, seed)
        model.trainer.training_step(x, targets)
        optimizer.zero_grad()
        module.loss(torch.from_numpy(x), torch.from_numpy(targets)).backward()
        optimizer.step()
    assert_close(module.params.detach(), model.network.params, 1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(4, 3)}, ValueError, r"x: expected shape \[batch, 2\]"),
        ({"targets": torch.zeros(4, 2)}, ValueError, r"targets: expected shape \[batch, 3\]"),
        ({"targets": torch.zeros(3, 3)}, ValueError, "targets: expected 4 rows as x has, got 3"),
        ({"targets": torch.tensor(1.0)}, ValueError, r"targets: expected shape \[batch, 3\]"),
        ({"pdf": torch.zeros(5, 3)}, ValueError, "pdf: expected 4 rows"),
        (
            {"targets": torch.zeros(4, 3, requires_grad=True)},
            ValueError,
            "targets: must not require a gradient; detach it",
        ),
        ({"x": np.zeros((4, 2))}, ValueError, "x: expected a tensor, got ndarray"),
        ({"targets": np.zeros((4, 3))}, ValueError, "targets: expected a tensor, got ndarray"),
        ({"pdf": [1.0]}, ValueError, "pdf: expected a tensor, got list"),
        ({"loss": None}, numbanet.ConfigError, "loss: expected a JSON object, got None"),
        ({"loss": "L3"}, numbanet.ConfigError, "loss.otype: 'L3' is no loss; use one of"),
        ({"loss": {"otype": "Huber", "delta": -1}}, numbanet.ConfigError, "delta"),
    ],
)
def test_what_is_wrong_is_said(changes, error, message):
    module, _ = make("hash")
    given = {"x": torch.zeros(4, 2), "targets": torch.zeros(4, 3)}
    with pytest.raises(error, match=message):
        module.loss(**{**given, **changes})


def test_options_of_a_loss_may_be_numpys():
    module, _ = make("hash")
    x, targets = map(torch.from_numpy, models.batch_of("hash", 33))
    value = module.loss(x, targets, {"otype": "Huber", "delta": np.float32(0.5)})
    assert torch.equal(value, module.loss(x, targets, {"otype": "Huber", "delta": 0.5}))
    assert not torch.equal(value, module.loss(x, targets, {"otype": "Huber", "delta": 2.0}))


def test_a_loss_that_needs_other_outputs_is_refused():
    module = tcnn.Network(2, 2, {"n_neurons": 16, "n_hidden_layers": 1}, device="cpu")
    with pytest.raises(numbanet.ConfigError, match="RelativeL2Luminance"):
        module.loss(torch.zeros(4, 2), torch.zeros(4, 2), "RelativeL2Luminance")


def test_second_derivatives_are_refused():
    module, _ = make("smooth")
    x, targets = map(torch.from_numpy, models.batch_of("smooth", 33))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(module.loss(x, targets), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of `loss` cannot be differentiated"):
        gradient.square().sum().backward()
