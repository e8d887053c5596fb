"""The calls that real programs make of tinycudann, in our own words.

The programs are named where one of them alone calls for something; sizes of tables are smaller.
"""

import copy
import gc
import itertools
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402
from numbanet.arrays import next_multiple  # noqa: E402

N = 37  # no multiple of anything


def check(module, n_inputs, n_outputs):
    """Forward and backward: finite values of the promised shape, gradients that are not all 0."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    x = torch.rand(N, n_inputs, generator=generator, requires_grad=True)
    y = module(x)
    assert y.shape == (N, n_outputs)
    assert module.n_output_dims == n_outputs
    assert torch.isfinite(y).all()
    y.float().square().sum().backward()
    if module.params.numel():
        assert torch.isfinite(module.params.grad).all()
        assert module.params.grad.abs().max() > 0
    assert x.grad.shape == x.shape
    assert torch.isfinite(x.grad).all()
    assert module(x[:0]).shape == (0, n_outputs)
    return y


def assert_near(y, expected, rtol=1e-4):
    """Outputs are float32 on the CPU, halves on a GPU."""
    if y.is_cuda:
        torch.testing.assert_close(y, expected.half(), rtol=1e-2, atol=1e-2)
    else:
        torch.testing.assert_close(y, expected, rtol=rtol, atol=1e-5)


GRIDS = [
    {"otype": "HashGrid"},
    {"otype": "Grid", "type": "Hash"},
    {"otype": "Grid", "type": "Dense"},
    {"otype": "Grid", "type": "Tiled"},
    {"otype": "DenseGrid"},
    {"otype": "TiledGrid"},
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("interpolation", ["Nearest", "linear", "SMOOTHSTEP"])
def test_kinds_of_grids(grid, interpolation):
    config = {
        **grid,
        "n_levels": 3,
        "n_features_per_level": 2,
        "log2_hashmap_size": 6,
        "base_resolution": 4,
        "per_level_scale": 1.5,
        "interpolation": interpolation,
    }
    check(tcnn.Encoding(3, config, dtype=torch.float32), 3, 6)


@pytest.mark.parametrize("n_dims", [2, 3, 4])
@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32])
def test_sizes_of_grids(n_dims, n_features, dtype):
    """Neuralangelo has 8 features, threestudio 4 dimensions."""
    config = {
        "otype": "hashgrid",
        "n_levels": 2,
        "n_features_per_level": n_features,
        "log2_hashmap_size": 6,
        "base_resolution": 2**3,
        "per_level_scale": np.exp(np.log(16 / 8) / 1),  # numpy.float64, as many compute it
    }
    encoding = tcnn.Encoding(n_dims, config, dtype=dtype)
    y = check(encoding, n_dims, 2 * n_features)
    assert y.dtype == encoding.dtype
    assert encoding.dtype == (dtype or (torch.float16 if y.is_cuda else torch.float32))


@pytest.mark.parametrize(
    ("n_inputs", "config", "n_outputs"),
    [
        (3, {"otype": "SphericalHarmonics", "degree": 4}, 16),
        (3, {"otype": "SphericalHarmonics", "degree": 3}, 9),
        (3, {"otype": "Frequency", "n_frequencies": 10}, 60),
        (3, {"otype": "TriangleWave", "n_frequencies": 6}, 18),
        (3, {"otype": "OneBlob", "n_bins": 16}, 48),
        (3, {"otype": "Identity"}, 3),
        (3, {"otype": "HashGrid", "n_levels": 1, "per_level_scale": 1}, 2),
        (3, {"otype": "Grid", "n_levels": 2, "type": "dense", "base_resolution": np.int64(4)}, 4),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float])
def test_encodings(n_inputs, config, n_outputs, dtype):
    check(tcnn.Encoding(n_inputs, config, dtype=dtype), n_inputs, n_outputs)


def test_directions_by_a_composite_alone():
    nested = {"n_dims_to_encode": 3, "otype": "SphericalHarmonics", "degree": 4}
    check(tcnn.Encoding(3, {"otype": "Composite", "nested": [nested]}), 3, 16)


def test_a_trainable_and_a_fixed_encoding_side_by_side():
    encoding = {
        "otype": "Composite",
        "nested": [
            {
                "otype": "Grid",
                "type": "Hash",
                "n_dims_to_encode": 3,
                "n_levels": 4,
                "log2_hashmap_size": 8,
            },
            {"otype": "Frequency", "n_dims_to_encode": 3, "n_frequencies": 10},
        ],
    }
    check(tcnn.NetworkWithInputEncoding(6, 16, encoding, network(64, 1)), 6, 16)


def network(n_neurons, n_hidden_layers, **options):
    """As nerfstudio chooses: fully fused where the width allows it."""
    otype = "FullyFusedMLP" if n_neurons in (16, 32, 64, 128) else "CutlassMLP"
    return {
        "otype": otype,
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": n_neurons,
        "n_hidden_layers": n_hidden_layers,
        **options,
    }


WIDTHS = (
    # in, out, neurons, hidden layers: each number at least once, and what programs combine
    (1, 1, 64, 1),
    (3, 3, 16, 2),
    (15, 3, 64, 2),
    (31, 3, 64, 2),
    (32, 16, 32, 5),
    (48, 33, 128, 1),
    (147, 512, 128, 2),
    (32, 384, 256, 1),
    (3, 1, 48, 3),
)


@pytest.mark.parametrize(("n_inputs", "n_outputs", "n_neurons", "n_hidden"), WIDTHS)
def test_sizes_of_networks(n_inputs, n_outputs, n_neurons, n_hidden):
    config = network(n_neurons, n_hidden)
    module = tcnn.Network(n_inputs, n_outputs, config)
    check(module, n_inputs, n_outputs)
    padded_in, padded_out = next_multiple(n_inputs, 16), next_multiple(n_outputs, 16)
    matrices = (padded_in + padded_out) * n_neurons + (n_hidden - 1) * n_neurons**2
    assert module.params.numel() == matrices


def test_no_hidden_layer_is_one_matrix():
    """K-Planes; also with numbers from NumPy."""
    config = network(128, np.int64(0), otype="CutlassMLP", activation="None")
    module = tcnn.Network(32, 16, config)
    check(module, 32, 16)
    assert module.params.numel() == 32 * 16
    x = torch.rand(5, 32)
    assert_near(module(x), x @ module.params.view(16, 32).T, rtol=1.3e-6)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Leaky ReLU", "LeakyReLU"),  # nerfstudio's spelling, which tinycudann refuses
        ("relu", "ReLU"),
        ("none", "None"),
        *((name, name) for name in ("ReLU", "Sigmoid", "Softplus", "Tanh", "None")),
    ],
)
def test_names_of_activations(name, plain):
    config = network(16, 1, activation=name, output_activation=name)
    options = tcnn.Network(3, 3, config).native_tcnn_module.hyperparams()["network"]
    assert (options["activation"], options["output_activation"]) == (plain, plain)


def test_activations_are_applied():
    config = network(16, 1, activation="Leaky ReLU", output_activation="Sigmoid")
    y = check(tcnn.Network(3, 3, config), 3, 3)
    assert ((y > 0) & (y < 1)).all()


def test_options_of_others_pass_through():
    """instant-nsr-pl keeps its own options in the same objects."""
    encoding = {
        "otype": "HashGrid",
        "n_levels": 2,
        "log2_hashmap_size": 8,
        "include_xyz": True,
        "start_level": 1,
        "xyz_scale": 2.0,
        "xyz_offset": -1.0,
    }
    net = network(16, 1, sphere_init=True, sphere_init_radius=0.5, weight_norm=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = tcnn.NetworkWithInputEncoding(3, 4, encoding, net, 7)
    (warning,) = caught
    assert all(name in str(warning.message) for name in ("include_xyz", "sphere_init"))
    assert module.encoding_config["xyz_scale"] == 2.0
    check(module, 3, 4)


def test_weights_written_from_outside():
    """instant-nsr-pl starts with a sphere: it replaces the only parameter's data as a whole."""
    module = tcnn.Network(32, 4, network(64, 2))
    (params,) = module.parameters()
    first = torch.randn(64, 32) / 8
    second = torch.randn(64, 64) / 8
    last = torch.zeros(16, 64)
    last[:4] = torch.randn(4, 64) / 8
    data = torch.cat([matrix.flatten() for matrix in (first, second, last)])
    assert params.data.shape == data.shape
    params.data = data
    x = torch.randn(N, 32)
    expected = torch.relu(torch.relu(x @ first.T) @ second.T) @ last[:4].T
    assert_near(module(x), expected)


def test_networks_pad_their_inputs_with_ones():
    module = tcnn.Network(3, 16, network(16, 0, otype="CutlassMLP"))
    x = torch.rand(N, 3)
    matrix = module.params.view(16, 16)
    padded = torch.cat([x, torch.ones(N, 13)], dim=1)
    assert_near(module(x), padded @ matrix.T)


def test_a_radiance_field_of_separate_modules():
    """Density from a grid, colour from features and direction; torch's own layers in between."""
    density = tcnn.NetworkWithInputEncoding(
        3, 16, {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 8}, network(64, 1)
    )
    direction = tcnn.Encoding(3, {"otype": "SphericalHarmonics", "degree": 4})
    head = tcnn.Network(direction.n_output_dims + 15, 3, network(64, 2))
    x, d = torch.rand(4, 9, 3), torch.nn.functional.normalize(torch.randn(4, 9, 3), dim=-1)
    h = density(x.view(-1, 3)).view(4, 9, -1).to(x)
    sigma, features = h.split([1, 15], dim=-1)
    encoded = direction(((d + 1) / 2).view(-1, 3))
    rgb = torch.sigmoid(head(torch.cat([encoded, features.reshape(-1, 15)], dim=-1)).float())
    (rgb.mean() + torch.exp(sigma - 1).mean()).backward()
    assert head.params.grad.abs().max() > 0
    assert density.params.grad.abs().max() > 0


def test_normals_from_a_grid_and_a_network_of_pytorch():
    """Programs that learn surfaces: the gradient of the distance enters the loss."""
    grid = tcnn.Encoding(
        3,
        {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 8, "interpolation": "Smoothstep"},
        dtype=torch.float32,
    )
    layers = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.Softplus(100), torch.nn.Linear(16, 1)
    )
    x = torch.rand(N, 3, requires_grad=True)
    with torch.enable_grad():
        distance = layers(grid(x).to(x))
        (normal,) = torch.autograd.grad(
            distance, x, torch.ones_like(distance), create_graph=True, retain_graph=True
        )
    (normal.norm(2, dim=-1) - 1).square().mean().backward()
    assert grid.params.grad.abs().max() > 0
    assert all(each.grad is not None for each in layers[:-1].parameters())


def test_a_mask_over_levels():
    """Neuralangelo shows the network one level after the other."""
    grid = tcnn.Encoding(
        3, {"otype": "HashGrid", "n_levels": 4, "n_features_per_level": 8, "log2_hashmap_size": 6}
    )
    mask = torch.zeros(32)
    mask[:8] = 1
    (grid(torch.rand(N, 3)) * mask).sum().backward()
    first = grid.params.grad.view(-1, 8)
    n_first_level = min(16**3, 2**6)
    assert first[:n_first_level].abs().max() > 0
    assert first[n_first_level:].abs().max() == 0


def test_gradients_scaled_by_hooks():
    """nvdiffrec divides by the loss scale on the way back, and the gradient afterwards."""
    grid = tcnn.Encoding(3, {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8})
    x = torch.rand(N, 3, requires_grad=True)
    grid(x).sum().backward()
    expected, x.grad = x.grad, None
    grid.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] / 128,))
    grid(x).sum().backward()
    torch.testing.assert_close(x.grad, expected / 128)
    before = grid.params.grad.clone()
    grid.params.grad /= 8.0
    torch.testing.assert_close(grid.params.grad, before / 8)


def test_checkpoints_in_halves():
    """Compact-3DGS saves halves as NumPy arrays, and makes them the parameters later."""
    head = tcnn.Network(31, 3, network(64, 2))
    saved = head.params.half().detach().cpu().numpy()
    x = torch.rand(N, 31)
    before = head(x)
    head.params = torch.nn.Parameter(torch.from_numpy(saved).to(torch.get_default_device()))
    torch.testing.assert_close(head(x), before, rtol=1e-2, atol=1e-2)


def test_memory_is_given_back_on_request():
    gc.collect()
    torch.cuda.empty_cache()
    tcnn.free_temporary_memory()
    check(tcnn.Encoding(3, {"otype": "Identity"}), 3, 3)


def test_the_official_sample_s_calls():
    model = tcnn.NetworkWithInputEncoding(
        n_input_dims=2,
        n_output_dims=3,
        encoding_config={"otype": "OneBlob", "n_bins": 32},
        network_config=network(64, 4),
    )
    model.jit_fusion = tcnn.supports_jit_fusion()
    assert "OneBlob" in str(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.rand(256, 2)
    targets = x[:, :1].repeat(1, 3)
    first = None
    for _ in range(20):
        y = model(x)
        error = (y - targets.to(y.dtype)) ** 2 / (y.detach() ** 2 + 0.01)
        loss = error.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = loss.item() if first is None else first
    assert loss.item() < 0.5 * first


def test_two_forwards_before_one_backward():
    module = tcnn.Network(3, 1, network(16, 2))
    a, b = torch.rand(5, 3), torch.rand(300, 3)
    ya, yb = module(a), module(b)
    (ya.sum() + yb.sum()).backward()
    both = module.params.grad.clone()
    module.params.grad = None
    for x in (a, b):
        module(x).sum().backward()
    torch.testing.assert_close(module.params.grad, both)


def test_deep_copies_for_averages():
    """Programs that keep an exponential moving average of a model."""
    model = torch.nn.ModuleDict({"net": tcnn.Network(3, 1, network(16, 2))})
    average = copy.deepcopy(model)
    for mean, value in itertools.zip_longest(average.parameters(), model.parameters()):
        mean.data.mul_(0.9).add_(value.data, alpha=0.1)
    x = torch.rand(5, 3)
    torch.testing.assert_close(average["net"](x), model["net"](x), rtol=1e-4, atol=1e-5)
