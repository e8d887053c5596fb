"""Networks 64 wide, which compute capability 9.0 trains by warpgroups; and what it does not."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH
from test_fused import IDENTITY, ONE_BLOB, ROUNDING, Case, assert_fused, mlp

import numbanet
from numbanet.architecture import has_warpgroups
from numbanet.cuda.driver.compile_only import CompileOnlyDevice

CASES = {
    # 48 features, of which each warpgroup has all
    "shallow": (3, 17, "bfloat16", ONE_BLOB, mlp("FullyFusedMLP", 64, 2, "Sigmoid"), "L2"),
    # of which each of two warpgroups has 24
    "deep": (3, 3, "float16", ONE_BLOB, mlp("FullyFusedMLP", 64, 4, "Tanh", "Sigmoid"), "L2"),
    "narrow": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 64, 1, "Tanh"), "RelativeL2"),
}


def layout_of(device, n_dims, encoding, n_neurons, n_hidden_layers=2, precision="float16"):
    network = mlp("CutlassMLP", n_neurons, n_hidden_layers)
    config = {"encoding": encoding, "network": network}
    options = {"device": device, "precision": precision}
    model = numbanet.create_from_config(n_dims, 3, config, **options)
    return model.network.engine.fused.training_shape.layout


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), True), *((each, False) for each in ((8, 0), (8, 6), (8, 9), (10, 0), (12, 0)))],
)
def test_gpus_with_warpgroups(capability, expected):
    """Later ones have no wgmma any more."""
    device = CompileOnlyDevice(capability, assembles=False)
    assert has_warpgroups(device) is expected
    for precision in ("float16", "bfloat16"):
        assert layout_of(device, 2, HASH, 64, precision=precision).in_warpgroups is expected


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0), (12, 0)])
def test_instructions_of_warpgroups(capability):
    """Those of 9.0 alone, and of no kernel that does not train."""
    device = CompileOnlyDevice(capability, assembles=False)
    config = {"encoding": IDENTITY, "network": mlp("FullyFusedMLP", 64, 1)}
    model = numbanet.create_from_config(2, 3, config, device=device, precision="float16")
    x = np.zeros((5, 2), np.float32)
    model(x)
    model.trainer.training_step(x, np.zeros((5, 3), np.float32))
    texts = {kernel.name: kernel.ptx.text for kernel in device.kernels}
    fused = {name for name in texts if name.startswith("fused_training")}
    assert fused
    assert {name for name in texts if "wgmma." in texts[name]} == (
        fused if capability == (9, 0) else set()
    )
    targets = {name: ".target sm_{}{}a".format(*capability) in text for name, text in texts.items()}
    assert {name for name in texts if targets[name]} == (fused if capability == (9, 0) else set())


@pytest.mark.parametrize("n_neurons", [16, 32, 48, 128])
def test_networks_of_other_widths(n_neurons):
    device = CompileOnlyDevice((9, 0), assembles=False)
    assert not layout_of(device, 2, HASH, n_neurons, 1).in_warpgroups


@pytest.mark.parametrize(
    ("n_features", "n_hidden_layers", "n_warps"),
    [(16, 1, 4), (48, 2, 4), (128, 1, 4), (16, 4, 8), (48, 4, 8), (80, 3, 8)],
)
def test_layouts_in_pieces(n_features, n_hidden_layers, n_warps):
    """Features are as wide as they like; nothing overlaps, and descriptors can say it."""
    device = CompileOnlyDevice((9, 0), assembles=False)
    layout = layout_of(device, n_features, IDENTITY, 64, n_hidden_layers)
    assert (layout.in_warpgroups, layout.n_warps, layout.widths[0]) == (True, n_warps, n_features)
    for k, (fan_out, fan_in) in enumerate(layout.model.network.shapes[:-1]):
        end = (*layout.weights, layout.weights_bytes)[k + 1]
        assert layout.weights[k] + fan_in // 8 * 16 * (fan_out + 1) <= end
    for width, start, end in zip(layout.widths, layout.rows, layout.rows[1:], strict=False):
        assert end - start == width // 8 * 16 * (layout.n_threads + 1)
    assert all(place % 16 == 0 for place in (*layout.weights, *layout.rows, layout.piece_pitch))
    assert layout.piece_pitch // 16 < 2**14


@pytest.mark.parametrize("name", CASES)
def test_training_is_as_exact_as_halves_allow(cuda_device, name):
    case = Case(name, cuda_device, cases=CASES)
    layout = case.fused.fused.training_shape.layout
    assert layout.in_warpgroups == has_warpgroups(cuda_device)
    (loss, gradients), launches = case.launched(case.fused, case.train)
    assert_fused(launches, "training")
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    expected = case.loss_of(case.reference.inference(case.x))[0]
    assert loss == pytest.approx(expected, rel=2 * ROUNDING[case.precision])


@pytest.mark.parametrize("with_params", [False, True])
def test_gradients_of_inputs(cuda_device, with_params):
    """Alone, or beside those of the parameters."""
    case = Case("deep", cuda_device, 129, cases=CASES)
    dl_dx, gradients = case.input_gradients(case.fused, with_params=with_params)
    case.assert_input_gradients(dl_dx, lambda y: case.loss_of(y)[1])
    if with_params:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


@pytest.mark.parametrize("n", [0, 1, 31, 129, 385, 1000])
def test_any_batch_size(cuda_device, n):
    """Where some warps or a whole warpgroup have no samples."""
    case = Case("narrow", cuda_device, n, cases=CASES)
    loss, gradients = case.train(case.fused)
    expected = case.loss_of(case.reference.inference(case.x))[0]
    assert loss == pytest.approx(expected, rel=1e-3)
    if n > 1:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    else:
        assert gradients.any() == (n > 0)
