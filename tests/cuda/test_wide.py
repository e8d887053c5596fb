"""Networks of many weights, trained in two kernels: as exact as halves allow, like the chain."""

from collections import Counter

import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, make_config, mlp
from test_fused import (
    COMPOSITE,
    HALF_SUMS,
    INFERRED,
    ONE_BLOB,
    ROUNDING,
    Case,
    emulated,
    total,
)

import numbanet
from numbanet.cuda.memory.arrays import to_device
from numbanet.cuda.wide import engine as wide_engine
from numbanet.cuda.wide.layout import WideLayout, trains_wide
from numbanet.cuda.wide.weights_kernel import N_WARPS, Tile

# name -> n_input_dims, n_output_dims, precision, encoding, network, loss
WIDE = {
    "one_blob": (
        *(2, 3, "float16", {"otype": "OneBlob", "n_bins": 64}),
        *(mlp("FullyFusedMLP", 128, 2, "Tanh"), "RelativeL2"),
    ),
    "hash": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 64, 5), "L2"),
    "leaky": (
        2, 17, "float16", ONE_BLOB, mlp("CutlassMLP", 80, 4, "LeakyReLU", "Sigmoid"), "L2",
    ),
    "composite": (5, 33, "bfloat16", COMPOSITE, mlp("CutlassMLP", 48, 5, "Tanh", "Sine"), "L2"),
    "thin": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 16, 10, "Tanh"), "RelativeL2Luminance"),
}  # fmt: skip
KERNELS = ["wide_training", "wide_gradients"]


def case_of(name, device, n=257, precision=None):
    return Case(name, device, n, precision, cases=WIDE | INFERRED, n_candidates=20)


def assert_wide(launches, times=1, gradients=True):
    """Two kernels have done it all; beside them are only conversions and sums of halves."""
    names = KERNELS if gradients else KERNELS[:1]
    found = ["_".join(name.split("_")[:2]) for name in launches]
    assert [name for name in found if "wide" in name] == names * times
    assert not any("product" in name or "forward" in name for name in found)


@pytest.mark.parametrize("name", WIDE)
def test_training_is_as_exact_as_halves_allow(cuda_device, name):
    case = case_of(name, cuda_device, 33 if name == "one_blob" else 257)
    (loss, gradients), launches = case.launched(case.fused, case.train)
    assert_wide(launches)
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    expected = case.loss_of(case.reference.inference(case.x))[0]
    assert loss == pytest.approx(expected, rel=ROUNDING[case.precision])


@pytest.mark.parametrize("name", ["leaky", *INFERRED])
def test_the_chain_of_kernels_computes_the_same(cuda_device, name):
    """Among others for activations that are differentiated at their inputs."""
    case = case_of(name, cuda_device, 65)
    (loss, gradients), launches = case.launched(case.fused, case.train)
    assert_wide(launches)
    expected, of_chain = case.train(case.engine(fused=False))
    tolerance = 4 * ROUNDING[case.precision]
    assert loss == pytest.approx(expected, rel=tolerance)
    assert_close(gradients, of_chain, 2 * tolerance)


# What a pass may be given


@pytest.mark.parametrize("n", [0, 1, 31, 33, 257])
def test_any_batch_size(cuda_device, n):
    case = case_of("thin", cuda_device, n)
    loss, gradients = case.train(case.fused)
    if n == 0:
        assert loss == 0
        assert not gradients.any()
        return
    if n == 1:  # too few roundings to compare what they come to
        y = case.twin.inference(case.x, case.params)
        _, exact = case.twin.backward(case.x, case.params, case.loss_of(y)[1])
        assert_close(gradients, exact, 8 * ROUNDING["float16"])
    else:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=2e-3)


def test_a_smaller_batch_after_a_larger_one(cuda_device):
    """Of which the rest still lies in memory."""
    small, large = (case_of("thin", cuda_device, n) for n in (33, 257))
    _, expected = small.train(small.fused)
    large.train(large.fused)
    _, gradients = small.train(large.fused)
    assert_close(gradients, expected, 1e-5)


def test_densities_weigh_the_loss(cuda_device):
    case = case_of("thin", cuda_device)
    pdf = np.random.default_rng(2).uniform(0.1, 2, case.targets.shape).astype(np.float32)
    loss, gradients = case.train(case.fused, pdf=pdf)
    case.assert_gradients(gradients, lambda y: case.loss_of(y, pdf)[1])
    expected = case.loss_of(case.reference.inference(case.x), pdf)[0]
    assert loss == pytest.approx(expected, rel=2e-3)


def test_gradients_from_outside(cuda_device):
    case = case_of("thin", cuda_device)
    dl_dy = np.random.default_rng(3).normal(size=case.targets.shape).astype(np.float32)
    gradients = case.target.gradients(case.twin.n_params, case.twin.mlp.n_params)
    batch, params = case.batch(external_dl_dy=dl_dy), case.stored.current()
    assert case.fused.forward_backward(batch, params, None, gradients).n == 0
    case.assert_gradients(gradients.flat.numpy(), lambda y: dl_dy.astype(np.float64))


def test_gradients_are_added(cuda_device):
    case = case_of("thin", cuda_device)
    _, once = case.train(case.fused)
    _, twice = case.train(case.fused, times=2)
    assert_close(twice, 2 * once, 1e-5)


def test_a_pass_for_the_loss_alone(cuda_device):
    case = case_of("thin", cuda_device)
    batch = case.batch(targets=case.targets)

    def evaluate(engine):
        return total(engine.forward_backward(batch, case.stored.current(), case.loss))

    loss, launches = case.launched(case.fused, evaluate)
    assert_wide(launches, gradients=False)
    assert loss == pytest.approx(case.train(case.fused)[0], rel=1e-6)


@pytest.mark.parametrize("with_params", [True, False])
@pytest.mark.parametrize("name", ["thin", "leaky", "composite"])
def test_gradients_of_inputs(cuda_device, name, with_params):
    """Also where the encoding has no parameters, so that features had no gradients before."""
    case = case_of(name, cuda_device, 65)
    (dl_dx, gradients), launches = case.launched(
        case.fused, lambda engine: case.input_gradients(engine, with_params=with_params)
    )
    assert_wide(launches, gradients=with_params)
    case.assert_input_gradients(dl_dx, lambda y: case.loss_of(y)[1])
    if with_params:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


@pytest.mark.parametrize("name", ["smooth", "sine"])
def test_gradients_of_inputs_alone(cuda_device, name):
    """Also where an activation is differentiated at its input; the chain computes the same."""
    case = case_of(name, cuda_device, 33)
    (dl_dx, _), launches = case.launched(
        case.fused, lambda engine: case.input_gradients(engine, with_params=False)
    )
    assert_wide(launches, gradients=False)
    of_chain, _ = case.input_gradients(case.engine(fused=False), with_params=False)
    assert_close(dl_dx, of_chain, 8 * ROUNDING[case.precision])


def test_gradients_of_inputs_from_outside(cuda_device, monkeypatch):
    """In slabs, and beside steps without them, whose units are of another size."""
    monkeypatch.setattr(wide_engine, "MOST_ROWS", 64)
    case = case_of("leaky", cuda_device, 100)
    dl_dy = np.random.default_rng(3).normal(size=case.targets.shape).astype(np.float32)
    for _ in range(2):
        _, gradients = case.train(case.fused)
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
        dl_dx, gradients = case.input_gradients(case.fused, dl_dy)
        case.assert_input_gradients(dl_dx, lambda y: dl_dy.astype(np.float64))
        case.assert_gradients(gradients, lambda y: dl_dy.astype(np.float64))


# Where and how often


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_compute_capability_8_0(pytestconfig, precision):
    """Gradients of tables in halves."""
    case = case_of("thin", emulated(pytestconfig, (8, 0)), precision=precision)
    (_, gradients), launches = case.launched(case.fused, case.train)
    assert_wide(launches)
    case.assert_gradients_in_halves(gradients, 2 * HALF_SUMS[precision])


def test_a_warp_takes_one_unit_after_another(pytestconfig):
    """And a block of weight gradients one stage; what lies in global memory is nobody else's."""
    options = {"n_multiprocessors": 1, "racecheck": "global"}
    case = case_of("thin", emulated(pytestconfig, **options), 1000)
    loss, gradients = case.train(case.fused)
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=2e-3)


def test_slabs(cuda_device, monkeypatch):
    case = case_of("thin", cuda_device)
    expected, of_whole = case.train(case.fused)
    monkeypatch.setattr(wide_engine, "MOST_ROWS", 128)
    (loss, gradients), launches = case.launched(case.engine(), case.train)
    assert_wide(launches, times=3)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_close(gradients, of_whole, 1e-5)


def test_slabs_of_deterministic_steps(cuda_device, monkeypatch):
    """Whose sums of weights lie in one memory, one slab after the other."""
    case = case_of("thin", cuda_device)
    _, of_whole = case.train(case.fused)
    monkeypatch.setattr(wide_engine, "MOST_ROWS", 128)
    engine = case.engine()
    engine.deterministic = True
    for _ in range(2):
        _, gradients = case.train(engine)
        assert_close(gradients, of_whole, 1e-5)


def test_memory_is_bounded(cuda_device, monkeypatch):
    """By fewer samples of a slab where a sample takes more, but at least a stage."""
    case = case_of("thin", cuda_device, 33)
    wide = case.fused.wide
    per_stage = 2 * wide.layout.unit_bytes
    for n_bytes, n in ((1, 64), (2 * per_stage - 1, 64), (2 * per_stage, 128)):
        monkeypatch.setattr(wide_engine, "MOST_BYTES", n_bytes)
        assert wide._slab(wide.layout) == n
    monkeypatch.setattr(wide_engine, "MOST_BYTES", 1 << 40)
    assert wide._slab(wide.layout) == wide_engine.MOST_ROWS


def test_later_steps_allocate_nothing(pytestconfig):
    """The emulator refuses it while a graph is captured, which the second step is."""
    device = emulated(pytestconfig)
    config = make_config(HASH, mlp("FullyFusedMLP", 16, 10, "Tanh"))
    options = {"device": device, "precision": "float16"}
    model = numbanet.create_from_config(2, 3, config, **options)
    rng = np.random.default_rng(0)
    x, targets = (to_device(rng.random((70, n), np.float32), device) for n in (2, 3))
    losses = [float(model.trainer.training_step(x, targets)) for _ in range(2)]
    before, generation = device.allocations, model.network.engine.generation
    losses += [float(model.trainer.training_step(x, targets)) for _ in range(2)]
    assert device.allocations == before
    assert_wide(device.launches, times=4)
    assert losses[3] < losses[2] < losses[1] < losses[0]
    more = np.tile(x.numpy(), (2, 1)), np.tile(targets.numpy(), (2, 1))
    model.trainer.training_step(*more)
    assert model.network.engine.generation > generation


# What it costs


def of_opcode(counters, opcode):
    """The sum over all instructions that begin so."""
    lines = counters.lines.items()
    return sum((counter for (_, _, text), counter in lines if opcode in text), Counter())


@pytest.mark.parametrize("name", ["one_blob", "leaky"])
def test_memory_is_accessed_in_whole_sectors(pytestconfig, name):
    """Each kernel moves every byte of a unit once, and no banks conflict."""
    device = emulated(pytestconfig, racecheck=None, counters={})
    case = case_of(name, device, 64)
    case.train(case.fused)
    of = {"_".join(key.split("_")[:2]): counters for key, counters in device.counters.items()}
    training, gradients = (of[kernel] for kernel in KERNELS)
    layout, n_units = case.fused.wide.layout, 2
    n_partial_sums = 8 + n_units  # of the loss, before units and after each; 4 bytes are a sector
    assert 32 * (training.global_store_sectors - n_partial_sums) == n_units * layout.unit_bytes
    for counters in (training, gradients):
        found = of_opcode(counters, "ldmatrix")
        assert found["shared_wavefronts"] > 0
        assert found["shared_conflicts"] == 0
    copied = of_opcode(gradients, "cp.async")
    assert 32 * copied["global_load_sectors"] == n_units * layout.unit_bytes
    assert copied["shared_conflicts"] == 0
    n_fragments, shapes = 4, case.model.network.shapes
    n_blocks = sum(rows * columns // 256 for rows, columns in shapes)
    assert gradients.mma == 2 * n_fragments * n_blocks
    first = shapes[0][0] * shapes[0][1] // 256  # whose gradient nobody asks for
    assert 0 < training.mma <= 2 * n_fragments * (2 * n_blocks - first)


@pytest.mark.parametrize("m", range(1, 9))
@pytest.mark.parametrize("n", range(1, 9))
def test_warps_have_all_blocks_of_a_matrix(m, n):
    tile = Tile(m, n)
    starts = [
        (tile.rows * (warp // tile.across), tile.columns * (warp % tile.across))
        for warp in range(N_WARPS)
    ]
    blocks = [
        (row + i, column + k)
        for row, column in starts
        for i in range(tile.rows)
        for k in range(tile.columns)
        if row + i < m and column + k < n
    ]
    assert sorted(blocks) == [(i, k) for i in range(m) for k in range(n)]
    assert tile.is_whole == (tile.rows * tile.columns * N_WARPS == m * n)
    assert 8 * tile.rows * tile.columns <= 64  # sums, in registers


def layout_of(n_neurons, n_hidden_layers, activation="ReLU"):
    config = make_config(HASH, mlp("CutlassMLP", n_neurons, n_hidden_layers, activation))
    model = numbanet.create_from_config(2, 3, config, device="cpu").network.engine.model
    return WideLayout(model, 8)


def test_what_is_trained_wide():
    """The rule in words stands in trains_wide()."""
    most = 227 * 1024
    for width, depth, expected in (
        *((128, 5, True), (128, 6, True), (128, 8, False), (16, 100, True), (112, 1, True)),
        *((144, 1, False), (100, 3, False), (64, 0, False)),
    ):
        assert trains_wide(layout_of(width, depth), most) is expected, (width, depth)
    layout = layout_of(128, 5, "SiLU")
    assert trains_wide(layout, layout.shared_bytes)
    assert not trains_wide(layout, layout.shared_bytes - 1)
