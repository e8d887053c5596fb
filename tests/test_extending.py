"""The components of docs/extending.md: its code as it stands, against NumPy; and its promises."""

import importlib
import re
import sys
from pathlib import Path

import naive
import naive_optimizers
import numpy as np
import pytest
from laws import TOLERANCE, EncodingData, assert_close

import numbanet
from numbanet import registry
from numbanet.activations import AbstractActivation, activation
from numbanet.device import device
from numbanet.registry import ConfigError

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
IMPORTS, LOSS, ACTIVATION, ENCODING, OPTIMIZER, TOGETHER = BLOCKS
COMPONENTS = (LOSS, ACTIVATION, ENCODING, OPTIMIZER)


@pytest.fixture(autouse=True)
def user_registry(monkeypatch):
    """A registry of its own for each test."""
    names = {kind: list(known) for kind, known in registry._display_names.items()}
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(registry, "_display_names", names)


def run(*blocks):
    """The names that blocks of the page, or changed ones, define; as one module of a user."""
    scope = {"__name__": "user_code"}
    exec(compile("\n".join((IMPORTS, *blocks)), "user_code.py", "exec"), scope)
    return scope


# Twins


def welsch(p, t, pdf, width=1.0):
    d = (p - t) / width
    return (1 - np.exp(-(d**2))) / pdf, 2 * d * np.exp(-(d**2)) / width / pdf


def gaussian(x):
    return np.exp(-(x**2))


def gaussian_slope(x):
    return -2 * x * np.exp(-(x**2))


class Bumps(naive.Encoding):
    def __init__(self, n_dims, n_features=8):
        self.n_dims, self.n_features, self.n_outputs = n_dims, n_features, n_dims * n_features

    def bumps(self, x):
        u = self.n_features * x[:, :, None] - np.arange(self.n_features)
        return u, np.exp(-(u**2))

    def spread(self, values, order):
        """[n, n_dims, n_features] on the diagonal of the inputs that it was derived for."""
        n, n_dims, n_features = values.shape
        result = np.zeros((n, n_dims, n_features) + (n_dims,) * order)
        for d in range(n_dims):
            result[(slice(None), d, slice(None)) + (d,) * order] = values[:, d]
        return result.reshape((n, n_dims * n_features) + (n_dims,) * order)

    def forward(self, x, params):
        return self.spread(self.bumps(x)[1], 0)

    def jacobian(self, x, params):
        u, e = self.bumps(x)
        return self.spread(-2 * self.n_features * u * e, 1)

    def hessian(self, x, params):
        u, e = self.bumps(x)
        return self.spread(self.n_features**2 * (4 * u**2 - 2) * e, 2)


class SignDescent:
    def __init__(self, n_params, shapes, learning_rate=1e-3, momentum=0.9):
        self.learning_rate, self.momentum, self.m = learning_rate, momentum, np.zeros(n_params)

    def step(self, w, g):
        self.m = self.momentum * self.m + (1 - self.momentum) * g
        return w - self.learning_rate * np.sign(self.m)


@pytest.fixture
def twins(monkeypatch):
    monkeypatch.setitem(naive.LOSSES, "welsch", welsch)
    monkeypatch.setitem(naive.ACTIVATIONS, "Gaussian", (gaussian, gaussian_slope))
    monkeypatch.setitem(naive.ENCODINGS, "bumps", Bumps)
    monkeypatch.setitem(naive_optimizers.OPTIMIZERS, "signdescent", SignDescent)


MLP = {"otype": "CutlassMLP", "n_neurons": 16, "n_hidden_layers": 1}


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (LOSS, {"loss": {"otype": "Welsch", "width": 2.0}}),
        (ACTIVATION, {"network": {**MLP, "activation": "Gaussian"}}),
        (ENCODING, {"encoding": {"otype": "Bumps", "n_features": 5}}),
        (OPTIMIZER, {"optimizer": {"otype": "SignDescent", "learning_rate": 0.01}}),
    ],
    ids=["loss", "activation", "encoding", "optimizer"],
)
def test_a_model_with_it_trains_as_its_twin(twins, block, part):
    run(block)
    config = {
        "loss": {"otype": "L2"},
        "optimizer": {"otype": "SGD", "learning_rate": 0.1},
        "encoding": {"otype": "Identity"},
        "network": MLP,
        **part,
    }
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    twin = naive.Trainer(2, 3, config, model.network.params)
    rng = np.random.default_rng(0)
    x = rng.random((100, 2), np.float32)
    targets = np.sin(5 * x[:, :1] + x[:, 1:] * np.arange(3)).astype(np.float32)
    losses = []
    for _ in range(30):
        losses.append(float(model.trainer.training_step(x, targets)))
        np.testing.assert_allclose(losses[-1], twin.training_step(x, targets), rtol=1e-4)
    assert_close(model.network.params, twin.params, 1e-3)
    assert losses[-1] < 0.8 * losses[0]
    for name, section in part.items():
        assert model.trainer.config()[name].items() >= section.items()


FILES = {"welsch": LOSS, "gaussian": ACTIVATION, "bumps": ENCODING, "sign_descent": OPTIMIZER}
ALL = {  # of a model
    "loss": {"otype": "Welsch", "width": 2.0},
    "optimizer": {"otype": "SignDescent", "learning_rate": 0.01},
    "encoding": {"otype": "Bumps", "n_features": 5},
    "network": {**MLP, "activation": "Gaussian"},
}


def assert_files_are_enough(directory, monkeypatch, **options):
    """A component is one file outside of the package; a model of them trains, is kept and goes on.

    Args:
        options: of the model's device.
    """
    monkeypatch.syspath_prepend(directory)
    for name, block in FILES.items():
        (directory / f"users_{name}.py").write_text(f"{IMPORTS}\n{block}")
        monkeypatch.delitem(sys.modules, f"users_{name}", raising=False)
        importlib.import_module(f"users_{name}")
    rng = np.random.default_rng(0)
    x = rng.random((100, 2), np.float32)
    y = np.sin(5 * x[:, :1] + x[:, 1:] * np.arange(3)).astype(np.float32)
    model = numbanet.create_from_config(2, 3, ALL, **options)
    losses = [float(model.trainer.training_step(x, y)) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    model.save(directory / "model.safetensors")
    loaded = numbanet.load(directory / "model.safetensors", **options)
    assert loaded.trainer.config() == model.trainer.config()
    both = [(float(each.trainer.training_step(x, y)), each(x)) for each in (model, loaded)]
    (loss, outputs), (same_loss, same_outputs) = both
    assert same_loss == pytest.approx(loss, rel=1e-5)
    to_host = model.network.target.to_host
    assert_close(to_host(same_outputs), to_host(outputs), 1e-5)


def test_a_component_takes_one_file_and_no_other_edit(tmp_path, monkeypatch):
    assert_files_are_enough(tmp_path, monkeypatch, device="cpu")


def test_derivatives_of_the_encoding(twins):
    run(ENCODING)
    encoding = registry.create(
        "encoding", {"otype": "bumps", "n_features": 5}, default="none", n_dims=3
    )
    data = EncodingData(encoding, Bumps(3, 5), 33)
    x, params, dl_dy, dl_ddx = data.doubles()
    assert_close(data.forward(), data.twin.forward(x, params), TOLERANCE["value"])
    expected = data.twin.backward_input(x, params, dl_dy)
    assert_close(data.backward_input(), expected, TOLERANCE["first"])
    expected = data.twin.double_backward(x, params, dl_dy, dl_ddx)
    dl_ddy, dl_dx = data.double_backward_input()
    assert_close(dl_ddy, expected[0], TOLERANCE["first"])
    assert_close(dl_dx, expected[1], TOLERANCE["second"])


def test_second_derivative_of_the_activation():
    run(ACTIVATION)
    x = np.linspace(-3, 3, 61)
    second = [activation("gaussian").second(np.float32(v)) for v in x]
    numeric = (gaussian_slope(x + 1e-5) - gaussian_slope(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(second, numeric, atol=1e-5)


def test_all_of_them_together_learn():
    losses = run(*COMPONENTS, TOGETHER)["losses"]
    assert losses[-1] < 0.01 * losses[0]


def test_the_examples_are_short():
    for block in COMPONENTS:
        assert len(block.splitlines()) < 20


# What the page says about names


def test_a_user_s_activation_is_listed_and_named_as_written():
    run(ACTIVATION)
    network = numbanet.create_network(2, 1, {**MLP, "activation": "GAUSSIAN"}).network
    assert registry.to_config(network)["activation"] == "Gaussian"
    with pytest.raises(ConfigError, match=r"network\.activation: .*Tanh, Gaussian"):
        numbanet.create_network(2, 1, {"activation": "Gausian"})


def test_an_activation_that_is_defined_anew_has_code_of_its_own():
    """The name and so the config stay the same; what was compiled for the old one must not."""
    config = {**MLP, "n_hidden_layers": 0, "output_activation": "Gaussian"}
    x = np.ones((1, 2), np.float32)
    outputs = []
    for block in (ACTIVATION, ACTIVATION.replace("return exp(-x * x)", "return TWO * x")):
        run(block)
        network = numbanet.create_network(2, 1, config)
        weights = np.zeros(network.n_params, np.float32)
        weights[:2] = 0.5
        outputs.append((network, weights))
    values = [float(network(x, weights)[0, 0]) for network, weights in outputs]
    np.testing.assert_allclose(values, [np.exp(-1), 2], rtol=1e-6)


def test_an_activation_has_the_functions_it_needs():
    @numbanet.register("activation", "Half")
    class Half(AbstractActivation):
        @device
        def forward(x):
            return x

    with pytest.raises(TypeError, match=r"activation Half: .*Half\.backward is missing"):
        activation("Half")


def test_only_double_backward_needs_the_second_derivative():
    run(ACTIVATION[: ACTIVATION.index("    @device\n    def second")])
    network = numbanet.create_network(2, 1, {**MLP, "activation": "Gaussian"}, device="cpu")
    _, context = network.forward(np.ones((3, 2)))
    network.backward(context, np.ones((3, 1)))
    gradients = network.gradients.copy()
    with pytest.raises(TypeError, match="activation Gaussian has no `second`"):
        network.double_backward(context, np.ones((3, 1)), np.ones((3, 2)))
    np.testing.assert_array_equal(network.gradients, gradients)
    assert np.abs(gradients).max() > 0


@pytest.mark.parametrize(
    ("block", "method", "message"),
    [
        (LOSS, "value_and_gradient", "loss Welsch: Welsch lacks value_and_gradient"),
        (ENCODING, "feature", "encoding Bumps: Bumps lacks feature"),
        (OPTIMIZER, "step", "optimizer SignDescent: SignDescent lacks step"),
    ],
)
def test_a_component_has_the_methods_it_needs(block, method, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        run(block.replace(f"def {method}(", "def other("))


# What the page says about code that does not compile


def train_once(device="cpu", **sections):
    config = {"encoding": {"otype": "Identity"}, "network": MLP, **sections}
    model = numbanet.create_from_config(1, 1, config, device=device)
    model.trainer.training_step(np.zeros((1, 1)), np.zeros((1, 1)))


def line_of(block, text):
    """The number of the line that holds `text`, where the block follows the imports."""
    lines = (IMPORTS + "\n" + block).splitlines()
    return 1 + next(k for k, line in enumerate(lines) if text in line)


BROKEN = {  # what breaks -> block, change, config, start of the message, Numba's complaint
    "a name that does not exist": (
        LOSS, ("exp(-d * d)", "exp(-d * dd)"), {"loss": {"otype": "Welsch"}},
        "Welsch.value_and_gradient: device function 'welsch'", "name 'dd' is not defined",
    ),
    "the component itself": (
        LOSS, ("d * e / pdf", "d * e / self.width"), {"loss": {"otype": "Welsch"}},
        "Welsch.value_and_gradient: device function 'welsch'", "type of <class 'user_code.Welsch'>",
    ),
    "something of a wrong type": (
        LOSS, ("(ONE - e)", "'e'"), {"loss": {"otype": "Welsch"}},
        "Welsch.value_and_gradient: device function 'welsch'", "str.*float32",
    ),
    "a value without its gradient": (
        LOSS, (", TWO * inverse * d * e / pdf", ""), {"loss": {"otype": "Welsch"}},
        "Welsch.value_and_gradient: device function", "unpack float32",
    ),
    "an argument too few": (
        ACTIVATION, ("backward(dl_dy, x)", "backward(x)"),
        {"network": {**MLP, "activation": "Gaussian"}},
        "Gaussian.backward: device function 'backward'", "too many positional arguments",
    ),
    "a function that is none of the device's": (
        ACTIVATION, ("    @device\n    def forward", "    def forward"),
        {"network": {**MLP, "activation": "Gaussian"}},
        "Gaussian.forward: device function", "<class 'function'>",
    ),
    "a derivative that is missing": (
        ENCODING, ("e, -TWO * n * u * e,", ""), {"encoding": {"otype": "Bumps"}},
        "Bumps.feature: device function 'elementwise", "",
    ),
    "an attribute that does not exist": (
        ENCODING, ("np.float32(k)", "k.position"), {"encoding": {"otype": "Bumps"}},
        "Bumps.feature: device function 'bumps'", "Unknown attribute 'position'",
    ),
    "a scalar that does not exist": (
        OPTIMIZER, ("scalars[0]", "rate"), {"optimizer": {"otype": "SignDescent"}},
        "SignDescent.step: device function 'sign_descent'", "name 'rate' is not defined",
    ),
    "arguments of another optimizer": (
        OPTIMIZER, (", scalars, matrices)", ", scalars)"), {"optimizer": {"otype": "SignDescent"}},
        "SignDescent.step: device function 'sign_descent'", "too many positional arguments",
    ),
    "a weight that is no number": (
        OPTIMIZER, ("return w - scalars[0] * sign", "return w, sign"),
        {"optimizer": {"otype": "SignDescent"}}, "SignDescent.step: ", "setitem",
    ),
}  # fmt: skip


def assert_explained(case, device, target):
    block, (old, new), config, who, why = BROKEN[case]
    assert old in block
    run(block.replace(old, new))
    for _ in range(2):  # Numba fails otherwise where it has failed before
        with pytest.raises(numbanet.DeviceCodeError) as raised:
            train_once(device, **config)
        message = str(raised.value)
        assert message.startswith(who)
        assert re.search(rf"does not compile for {target}: .*{why}", message)
        assert "\n" not in message
        assert isinstance(raised.value.__cause__, Exception)


@pytest.mark.parametrize("case", BROKEN)
def test_code_that_does_not_compile_is_explained(case):
    assert_explained(case, "cpu", "the CPU")


def test_the_line_of_the_mistake_is_named():
    broken = LOSS.replace("exp(-d * d)", "exp(d.imagine)")
    run(broken)
    line = line_of(broken, "imagine")
    with pytest.raises(numbanet.DeviceCodeError, match=rf"\(user_code\.py:{line}\)"):
        train_once(loss={"otype": "Welsch"})


def test_a_mistake_in_a_helper_names_the_component_and_the_helper():
    helper = "@device\ndef square(x):\n    return x.squared\n"
    run(helper, LOSS.replace("exp(-d * d)", "exp(-square(d))"))
    expected = (
        r"^Welsch\.value_and_gradient: device function 'square' \(user_code\.py:\d+\) "
        r"does not compile for the CPU: Unknown attribute 'squared' of type float32$"
    )
    with pytest.raises(numbanet.DeviceCodeError, match=expected):
        train_once(loss={"otype": "Welsch"})


def test_an_encoding_by_itself_is_explained_too():
    run(ENCODING.replace("exp(-u * u)", "exp(-v * v)"))
    encoding = numbanet.create_encoding(2, {"otype": "Bumps"})
    with pytest.raises(numbanet.DeviceCodeError, match=r"^Bumps\.feature: .*name 'v' is not"):
        encoding(np.zeros((3, 2)))


def test_what_works_again_is_not_blamed():
    run(LOSS.replace("exp(-d * d)", "exp(d.imagine)"))
    with pytest.raises(numbanet.DeviceCodeError):
        train_once(loss={"otype": "Welsch"})
    run(LOSS)
    train_once(loss={"otype": "Welsch"})
