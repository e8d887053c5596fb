"""Random whole models: whatever parts a config combines, they train as their float64 twins do."""

import laws
import models
import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from laws import assert_close

import numbanet

N_SAMPLES, N_STEPS = 33, 3
POSITIVE = ("Exponential", "Sigmoid", "Squareplus", "Softplus")
# With a small epsilon Adam would divide rounding errors by themselves, where gradients are small.
SMOOTH = {"epsilon": 1e-3}

WRAPPERS = {  # options that matter within three steps
    "Average": {"n_samples": 2},
    "Batched": {"batch_size_multiplier": 2},
    "EMA": {"decay": 0.5},
    "ExponentialDecay": {"decay_start": 1, "decay_interval": 1, "decay_base": 0.5},
    "Lookahead": {"n_steps": 2},
}


@st.composite
def encodings(draw):
    """(config, n_input_dims) of an example of the laws, or of a Composite of two or three."""
    otype, config, sizes = draw(st.sampled_from(laws.examples("encoding")))
    if otype != "Composite" or draw(st.booleans()):
        return {"otype": otype, **config}, sizes["n_dims"]
    leaves = [each for each in laws.examples("encoding") if each[0] != "Composite"]
    chosen = draw(st.lists(st.sampled_from(leaves), min_size=2, max_size=3))
    nested = [
        {"otype": otype, **config, "n_dims_to_encode": sizes["n_dims"]}
        for otype, config, sizes in chosen
    ]
    n_dims = sum(sizes["n_dims"] for *_, sizes in chosen)
    return {"otype": "Composite", "nested": nested}, n_dims


def has_features(drawn):
    return naive.encoding(*drawn).n_outputs > 0


@st.composite
def losses(draw):
    """(config, number of outputs) of an example of the laws."""
    otype, config, _ = draw(st.sampled_from(laws.examples("loss")))
    widths = [width for width in laws.loss_arguments(otype).widths if width < 30]
    return {"otype": otype, **config}, draw(st.sampled_from(widths))


@st.composite
def networks(draw, positive):
    """A config; positive outputs for the losses that need them."""
    outputs = POSITIVE if positive else tuple(naive.ACTIVATIONS)
    layers = {
        "activation": draw(st.sampled_from(tuple(naive.ACTIVATIONS))),
        "output_activation": draw(st.sampled_from(outputs)),
        "bias": draw(st.booleans()),
    }
    if draw(st.booleans()):
        sizes = {"n_neurons": draw(st.sampled_from((16, 32))), "n_hidden_layers": 1}
        return {"otype": "FullyFusedMLP", **sizes, **layers}
    sizes = {"n_neurons": draw(st.integers(1, 40)), "n_hidden_layers": draw(st.integers(0, 2))}
    return {"otype": "CutlassMLP", **sizes, **layers}


@st.composite
def optimizers(draw, parts):
    """A stack of wrappers around an optimizer, or around one for each of the parts."""
    kinds = ("Adam", "SGD", "Novograd", "Shampoo")
    rate = {"learning_rate": 1e-3}
    leaves = [{"otype": draw(st.sampled_from(kinds)), **rate} for _ in parts]
    for leaf in leaves:
        if leaf["otype"] != "SGD":
            leaf.update(SMOOTH)
    config = leaves[0]
    if len(parts) > 1 and draw(st.booleans()):
        nested = [
            {**leaf, "n_params_to_optimize": n} for leaf, n in zip(leaves, parts, strict=True)
        ]
        config = {"otype": "Composite", "nested": nested}
    for otype in draw(st.lists(st.sampled_from(tuple(WRAPPERS)), max_size=2, unique=True)):
        config = {"otype": otype, **WRAPPERS[otype], "nested": config}
    return config


@st.composite
def whole_models(draw):
    """n_input_dims, n_output_dims, config."""
    encoding, n_input_dims = draw(encodings().filter(has_features))
    loss, n_output_dims = draw(losses())
    network = draw(networks(laws.loss_arguments(loss["otype"]).positive))
    config = {"encoding": encoding, "network": network, "loss": loss}
    twin = naive.Model(n_input_dims, n_output_dims, config)
    sizes = (twin.mlp.n_params, twin.encoding.n_params)
    config["optimizer"] = draw(optimizers([size for size in sizes if size]))
    return n_input_dims, n_output_dims, config


# Each example compiles a training step, so there are few, and none to find a smaller one.
@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(whole_models())
def test_a_random_model_trains_as_its_twin(drawn):
    _, n_output_dims, _ = drawn
    twin = naive.Model(*drawn)
    params = models.lively_params(twin)
    trainer = naive.Trainer(*drawn, params)
    x = models.inputs_of(twin, N_SAMPLES, params=params)
    rng = np.random.default_rng(0)
    targets = rng.uniform(0.1, 1, (N_SAMPLES, n_output_dims)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        _, _, gradients = trainer.loss_and_gradients(x, targets)
    assume(np.abs(gradients).max() < 1e3)  # no tower of exponentials
    model = numbanet.create_from_config(*drawn, device="cpu")
    model.network.params = params
    for _ in range(N_STEPS):
        loss = float(model.trainer.training_step(x, targets))
        assert loss == pytest.approx(trainer.training_step(x, targets), rel=1e-4)
    moves = trainer.params - params
    rounding = 1e-6 * np.abs(params).max() / np.abs(moves).max()
    assert_close(model.network.params - params, moves, 1e-2 + rounding)
    weights = getattr(trainer.optimizer, "inference", trainer.params)
    assert_close(model(x), twin.inference(x, weights), 1e-4)
    assert model.trainer.n_steps == N_STEPS
