"""The modules by themselves: values, sizes, attributes, edge cases, copies."""

import copy
import io
import pickle

import models
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_close
from models import HASH, MODELS, mlp

import numbanet

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402
from numbanet.torch import evaluator  # noqa: E402

TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
IMAGE_GRID = {
    "otype": "HashGrid",
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 15,
    "base_resolution": 16,
    "per_level_scale": 1.5,
}


def make(name, **options):
    n_input_dims, n_output_dims, config = MODELS[name]
    return tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"], **options
    )


def make_lively(name, **options):
    """A module whose tables have values of the order of 1, and its twin."""
    twin, module = naive.Model(*MODELS[name]), make(name, **options)
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(models.lively_params(twin)))
    return module, twin


def random_inputs(n, n_dims, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((n, n_dims), np.float32))


# Initial values and sizes


def test_initial_parameters_are_tinycudanns():
    """Known values: see tests/test_model.py."""
    module = tcnn.NetworkWithInputEncoding(2, 3, IMAGE_GRID, mlp("FullyFusedMLP", 64, 2))
    assert module.params.numel() == 715536
    assert module.params.dtype == torch.float32
    assert module.params[0].item() == np.float32(-0.176150322)
    assert module.seed == 1337


@pytest.mark.parametrize("name", ["hash", "smooth", "identity", "linear"])
def test_parameters_are_laid_out_as_numbanets(name):
    n_input_dims, n_output_dims, config = MODELS[name]
    plain = numbanet.create_from_config(n_input_dims, n_output_dims, config, 7, "cpu").network
    module = make(name, seed=7)
    np.testing.assert_array_equal(module.params.detach().numpy(), plain.params)
    np.testing.assert_array_equal(
        module.native_tcnn_module.initial_params(7).cpu().numpy(), plain.params
    )


@pytest.mark.parametrize(
    ("config", "n_dims", "n_params"),
    [
        ({"otype": "HashGrid"}, 3, 14229504),
        ({"otype": "HashGrid", "per_level_scale": 1.5}, 3, 13026992),
        (IMAGE_GRID, 2, 708368),
        ({"otype": "SphericalHarmonics"}, 3, 0),
    ],
)
def test_sizes_of_encodings(config, n_dims, n_params):
    encoding = tcnn.Encoding(n_dims, config)
    assert encoding.params.shape == (n_params,)
    assert encoding.n_output_dims == (16 if n_params == 0 else 32)


# Values


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_numbanets(name):
    """Bit for bit: the same kernels compute."""
    module, twin = make_lively(name)
    network = models.create(name).network
    network.params = module.params.detach().numpy()
    x = models.inputs_of(twin, 33, 1)
    dl_dy = np.random.default_rng(2).normal(size=(33, module.n_output_dims)).astype(np.float32)
    inputs = torch.tensor(x, requires_grad=True)
    y = module(inputs)
    expected, context = network.forward(x)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    y.backward(torch.from_numpy(dl_dy))
    np.testing.assert_array_equal(inputs.grad.numpy(), network.backward(context, dl_dy))
    np.testing.assert_array_equal(module.params.grad.numpy(), network.gradients)
    assert np.abs(network.gradients).max() > 0


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtype_is_that_of_the_outputs(dtype):
    module, twin = make_lively("hash", dtype=dtype)
    x = models.inputs_of(twin, 40)
    y = module(torch.from_numpy(x))
    assert y.dtype == module.dtype == dtype
    assert module.loss_scale == (1 if dtype == torch.float32 else 128)
    expected = twin.inference(x, module.params.detach().numpy())
    assert_close(y.detach().float(), expected, TOLERANCE[dtype])
    y.sum().backward()
    assert module.params.grad.dtype == torch.float32


def test_outputs_are_float32_on_the_cpu_by_default():
    for module in (
        make("hash", device="cpu"),
        tcnn.Encoding(2, HASH, device="cpu"),
        tcnn.Network(2, 3, mlp("CutlassMLP", 16, 1), device="cpu"),
    ):
        assert module(torch.rand(3, 2)).dtype == module.dtype == torch.float32


@settings(max_examples=25)
@given(
    n=st.sampled_from([0, 1, 2, 127, 128, 129, 255, 257, 1000]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    layout=st.sampled_from(["plain", "transposed", "strided", "expanded", "offset"]),
)
def test_inputs_of_any_size_type_and_layout(n, dtype, layout):
    module, _ = make_lively("hash")
    x = random_inputs(n, 2, n).to(dtype)
    if layout == "transposed":
        x = x.T.contiguous().T
    elif layout == "strided":
        x = torch.stack([x, -x], dim=1).reshape(2 * n, 2)[::2]
    elif layout == "expanded":
        x = x[:1].expand(n, 2) if n else x
    elif layout == "offset":
        x = torch.cat([x, x])[n:, :]
    x.requires_grad_()
    y = module(x)
    plain = x.detach().to(torch.float32).contiguous()
    assert y.shape == (n, 3)
    torch.testing.assert_close(y, module(plain), rtol=0, atol=0)
    y.sum().backward()
    assert x.grad.dtype == dtype
    assert x.grad.shape == x.shape
    assert module.params.grad.shape == module.params.shape
    assert (module.params.grad.abs().max() > 0) == (n > 0)


@pytest.mark.parametrize(
    "x", [torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, 3), torch.zeros(1, 3, 2)], ids=str
)
def test_wrong_shapes_are_refused(x):
    with pytest.raises(ValueError, match=r"inputs: expected shape \[batch, 2\], got \["):
        make("hash")(x)


@pytest.mark.parametrize(("shape", "hint"), [((3,), r"; reshape it to \[batch, 1\]"), ((3, 2), "")])
def test_wrong_shapes_are_refused_with_a_hint(shape, hint):
    got = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"expected shape \[batch, 1\], got \[{got}\]{hint}$"):
        tcnn.Encoding(1, {"otype": "Identity"})(torch.zeros(shape))


def test_wrong_arguments_are_refused():
    with pytest.raises(numbanet.ConfigError, match=r"encoding\.otype"):
        tcnn.Encoding(3, {"otype": "HashGird"})
    for without in (
        lambda: tcnn.Encoding(3, None),
        lambda: tcnn.NetworkWithInputEncoding(3, 2, None, mlp("FullyFusedMLP", 16, 2)),
        lambda: tcnn.NetworkWithInputEncoding(3, 2, HASH, None),
    ):
        with pytest.raises(numbanet.ConfigError, match="got None"):
            without()
    with pytest.raises(ValueError, match="n_output_dims: None"):
        tcnn.NetworkWithInputEncoding(3, None, HASH, mlp("FullyFusedMLP", 16, 2))
    assert tcnn.Encoding(3, {})(torch.zeros(2, 3)).shape == (2, tcnn.Encoding(3, {}).n_output_dims)
    with pytest.raises(ValueError, match="inputs: expected a tensor, got ndarray"):
        tcnn.Encoding(3, HASH)(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="inputs: expected real numbers, got"):
        tcnn.Encoding(3, HASH)(torch.zeros(2, 3) * 1j)
    with pytest.raises(numbanet.ConfigError, match="n_neurons"):
        tcnn.Network(3, 3, {"otype": "FullyFusedMLP", "n_neurons": 48 + 1})
    with pytest.raises(ValueError, match="n_input_dims"):
        tcnn.Encoding(0, {"otype": "Identity"})
    with pytest.raises(ValueError, match=r"dtype: torch\.float64 is not allowed; use one of"):
        tcnn.Encoding(3, {"otype": "Identity"}, dtype=torch.float64)
    with pytest.raises(ValueError, match="seed"):
        tcnn.Encoding(3, {"otype": "Identity"}, seed=-1)
    with pytest.raises(ValueError, match="device 'mps' is not supported; move the module to"):
        evaluator.target_of(torch.device("mps"), "float32")


def test_the_meta_device_tells_shapes():
    module = tcnn.Encoding(2, HASH, device="meta")
    assert module(torch.zeros(5, 2, device="meta")).shape == (5, 8)


def test_unknown_options_warn_and_do_not_stop():
    with pytest.warns(numbanet.UnknownOptionWarning, match="include_xyz"):
        module = tcnn.Encoding(3, {"otype": "HashGrid", "n_levels": 2, "include_xyz": True})
    assert module(torch.rand(5, 3)).shape == (5, 4)


# Attributes and copies


def test_attributes():
    encoding_config, network_config = HASH, mlp("FullyFusedMLP", 16, 2)
    module = tcnn.NetworkWithInputEncoding(2, 3, encoding_config, network_config, seed=5)
    assert (module.n_input_dims, module.n_output_dims, module.seed) == (2, 3, 5)
    assert module.encoding_config is encoding_config
    assert module.network_config is network_config
    assert dict(module.named_parameters()).keys() == {"params"}
    assert list(module.state_dict()) == ["params"]
    native = module.native_tcnn_module
    assert (native.n_input_dims(), native.n_output_dims()) == (2, 16)
    assert native.n_params() == module.params.numel()
    assert native.hyperparams()["network"]["n_neurons"] == 16
    for part in ("NetworkWithInputEncoding(", "n_input_dims=2", "n_output_dims=3", "seed=5",
                 "dtype=torch.float32", "'n_neurons': 16"):  # fmt: skip
        assert part in repr(module)


def test_jit_fusion_is_a_switch():
    module = make("hash")
    assert module.jit_fusion is False
    module.jit_fusion = tcnn.supports_jit_fusion()
    assert module.jit_fusion == tcnn.supports_jit_fusion()
    module.jit_fusion = True
    assert module.jit_fusion is True
    with pytest.raises(AttributeError):
        del module.jit_fusion


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_state_dict(module):
    other = make("hash", seed=1)
    other.load_state_dict(module.state_dict())
    return other


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, through_pickle, through_torch_save, through_state_dict]
)
def test_copies_compute_the_same_and_are_their_own(copied):
    module, _ = make_lively("hash")
    other, x = copied(module), random_inputs(20, 2)
    before = module(x).detach()
    torch.testing.assert_close(other(x), before, rtol=0, atol=0)
    with torch.no_grad():
        other.params.add_(1)
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)
    assert not torch.equal(other(x), before)


def test_modules_live_with_others():
    """Equal modules share what computes, not their parameters."""
    nested = torch.nn.Sequential(
        tcnn.Encoding(2, HASH, seed=1), torch.nn.Linear(8, 2), tcnn.Encoding(2, HASH, seed=2)
    )
    assert len(list(nested.parameters())) == 4
    y = nested(torch.rand(7, 2))
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in nested.parameters())
    assert not torch.equal(nested[0].params, nested[2].params)


def test_free_temporary_memory_frees_nothing_that_is_needed():
    module, _ = make_lively("hash")
    x = random_inputs(20, 2)
    y = module(x)
    tcnn.free_temporary_memory()
    y.sum().backward()
    torch.testing.assert_close(module(x), y, rtol=0, atol=0)


# Replaced parameters


def test_half_parameters_may_replace_the_own_ones():
    module, _ = make_lively("hash")
    x = random_inputs(20, 2)
    rounded = module.params.detach().half()
    module.params = torch.nn.Parameter(rounded)
    y = module(x)
    with torch.no_grad():
        other = make("hash")
        other.params.copy_(rounded.float())
    torch.testing.assert_close(y, other(x), rtol=0, atol=0)
    y.sum().backward()
    assert module.params.grad.dtype == torch.float16
    assert module.params.grad.abs().max() > 0


def test_parameters_of_another_size_are_refused():
    module = make("hash")
    module.params = torch.nn.Parameter(module.params.detach()[:-1])
    wrong = rf"params: expected shape \[{len(module.params) + 1}\], got \[{len(module.params)}\]$"
    with pytest.raises(ValueError, match=wrong):
        module(torch.rand(3, 2))
    with pytest.raises(ValueError, match=wrong):
        module.native_tcnn_module.fwd(torch.rand(3, 2), module.params)


def test_half_makes_a_module_of_half_parameters():
    module, _ = make_lively("hash")
    x = random_inputs(20, 2)
    expected = module(x).detach()
    assert_close(copy.deepcopy(module).half()(x).detach(), expected, 2e-3)
    assert_close(copy.deepcopy(module).double()(x).detach(), expected, 1e-6)


class Evaluated(torch.utils.data.Dataset):
    """Samples that a model of the core and a module compute."""

    def __init__(self):
        encoding = {"otype": "Identity"}
        self.model = numbanet.create_encoding(2, encoding, device="cpu")
        self.module = tcnn.Encoding(2, encoding, device="cpu")

    def __len__(self):
        return 2

    def __getitem__(self, k):
        x = np.full((1, 2), k, np.float32)
        module = self.module(torch.from_numpy(x)).detach()
        return self.model.inference(x).sum() + float(module.sum())


def test_a_spawned_worker_of_a_data_loader_has_the_models():
    samples = torch.utils.data.DataLoader(
        Evaluated(), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )
    (values,) = samples
    np.testing.assert_allclose(values, [0, 4])


@pytest.mark.parametrize("name", ["hash", "one_blob", "linear"])
def test_matrices_of_a_module(name):
    """Those of numbanet's own model with the same parameters; what they are given, it computes."""
    module, _ = make_lively(name)
    network = models.create(name).network
    network.params = module.params.detach().numpy()
    found = numbanet.to_matrices(module)
    for matrix, expected in zip(found, numbanet.to_matrices(network), strict=True):
        np.testing.assert_array_equal(matrix, expected)
    other = [2 * matrix for matrix in found]
    for model in (module, network):
        numbanet.from_matrices(model, other)
    np.testing.assert_array_equal(module.params.detach().numpy(), network.params)
    encoding = tcnn.Encoding(2, HASH, device="cpu")
    with pytest.raises(TypeError, match=r"got a numbanet\.torch\.modules\.Encoding"):
        numbanet.to_matrices(encoding)


# Tables in few bits


@pytest.mark.parametrize("compression", ["Int8", "OneBit"])
def test_tables_in_few_bits_are_those_of_a_model(compression):
    """Their gradients pass straight through, and the second ones too."""
    n_input_dims, n_output_dims, config = MODELS["smooth"]
    encoding = {**config["encoding"], "compression": compression}
    module = tcnn.NetworkWithInputEncoding(n_input_dims, n_output_dims, encoding, config["network"])
    own = {**config, "encoding": encoding}
    plain = numbanet.create_from_config(n_input_dims, n_output_dims, own, device="cpu").network
    values = np.random.default_rng(0).normal(size=plain.n_params).astype(np.float32)
    plain.params = values
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(values))
    x = random_inputs(33, n_input_dims).requires_grad_()
    y, (expected, context) = module(x), plain.forward(x.detach().numpy())
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    dl_dy = np.ones_like(expected)
    np.testing.assert_allclose(slope.detach().numpy(), plain.backward(context, dl_dy), rtol=1e-5)
    y.sum().backward(retain_graph=True)
    assert_close(module.params.grad.numpy(), plain.gradients, 1e-5)
    module.params.grad = None
    slope.sum().backward()
    plain.double_backward(context, dl_dy, np.ones_like(slope.detach().numpy()))
    assert_close(module.params.grad.numpy(), plain.gradients, 1e-5)
