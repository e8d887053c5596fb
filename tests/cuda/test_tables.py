"""Gradients of tables, added up as integers in shared memory: exact to their unit, in any order."""

import re

import naive
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_fused import TRAINED, Case, mlp
from test_gates import TURING, UNWANTED
from test_wide import WIDE

import numbanet
from numbanet import registry
from numbanet.cuda import engine as engine_module
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.memory.arrays import to_device
from numbanet.cuda.tables import gradients as tables_module
from numbanet.cuda.tables import plan as plan_module
from numbanet.cuda.tables import sums
from numbanet.cuda.tables.gradients import ModelTables
from numbanet.cuda.tables.plan import BIN, TablePlan
from numbanet.encodings.parts import Part

HASH = {
    "otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 10, "base_resolution": 4,
    "per_level_scale": 2.6,
}  # fmt: skip
SMALL = 1024  # bytes of shared memory for resident levels, so that larger ones are binned
BITS_OF_HALVES = 11  # with which records hold their gradients, and nearly as many their places

# name -> n_dims, options of the grid
GRIDS = {
    "2-D": (2, {}),
    "3-D, Smoothstep": (3, {"interpolation": "Smoothstep", "n_features_per_level": 4}),
    "1-D, one feature": (1, {"n_features_per_level": 1, "log2_hashmap_size": 5}),
    "4-D, tiled": (4, {"type": "Tiled", "n_levels": 2, "per_level_scale": 1.3}),
    "2-D, dense": (2, {"type": "Dense", "n_features_per_level": 8, "n_levels": 2}),
    "3-D, entries far apart": (3, {"hash": "Prime", "n_levels": 2}),
    "3-D, resolutions per axis": (3, {"resolutions": [[5, 2, 3], 6, [9, 31, 10]]}),
    "2-D, nearest": (2, {"interpolation": "Nearest"}),
}


class Sums:
    """A grid's gradient by ModelTables, for gradients of its features."""

    def __init__(self, device, n_dims, options, monkeypatch, max_shared_bytes=None):
        config = {**HASH, **options, "otype": "Grid"}
        self.grid = registry.create("encoding", config, default="Grid", n_dims=n_dims)
        self.config = config
        self.device, self.n_dims = device, n_dims
        monkeypatch.setattr(plan_module, "JOBS", 8)  # few blocks, which the emulator runs
        monkeypatch.setattr(plan_module, "PIECES", 2)
        monkeypatch.setattr(plan_module, "FEWEST_OF_SLICE", 64)
        padded = self.grid.padded(2 * -(-self.grid.n_outputs // 2))
        self.tables = ModelTables(device, padded, "float16", max_shared_bytes)

    def __call__(self, x, dl_dy, adds_to=None):
        n, n_words = len(x), self.tables.keep(1).stop
        halves = np.zeros((-(-n // 4) * 4, 2 * n_words), np.float16)
        halves[:n, : dl_dy.shape[1]] = dl_dy
        words = np.ascontiguousarray(halves.view(np.uint32).T)
        kept, sizes = self.tables.keep(n), np.abs(halves[:n].astype(np.float32))
        self.device.copy_to_device(kept.address, words)
        largest = sizes.reshape(n, n_words, 2).max((0, 2))
        self.device.copy_to_device(kept.largest, largest)
        start = np.zeros(self.grid.n_params, np.float32) if adds_to is None else adds_to
        inputs, out = to_device(x.astype(np.float32), self.device), to_device(start, self.device)
        self.tables(inputs.address, n, kept, out.address, 1.0, adds_to is not None)
        return out.numpy()

    def exact(self, x, dl_dy):
        x, dl_dy = np.asarray(x, np.float32), np.asarray(dl_dy, np.float16)
        params, twin = np.zeros(self.grid.n_params), naive.encoding(self.config, self.n_dims)
        return twin.backward_params(x.astype(np.float64), params, dl_dy.astype(np.float64))

    def batch(self, n, seed=0, spread=6):
        rng = np.random.default_rng(seed)
        x = rng.random((n, self.n_dims), dtype=np.float32)
        size = 2.0 ** rng.integers(-spread, 1, (n, 1))
        return x, (rng.normal(size=(n, self.grid.n_outputs)) * size).astype(np.float16)


@pytest.fixture(params=[None, SMALL], ids=["resident", "binned"])
def sums_of(request, cuda_device, monkeypatch):
    """(n_dims, options) -> Sums; with levels in shared memory, or else in bins."""

    def make(n_dims, options):
        return Sums(cuda_device, n_dims, options, monkeypatch, request.param)

    return make


@pytest.mark.parametrize("name", GRIDS)
def test_gradients_are_those_of_the_twin(name, sums_of):
    found = sums_of(*GRIDS[name])
    x, dl_dy = found.batch(300)
    exact = found.exact(x, dl_dy)
    error = np.linalg.norm(found(x, dl_dy) - exact) / np.linalg.norm(exact)
    assert error < 2.0**-BITS_OF_HALVES


@pytest.mark.parametrize(("n_dims", "features"), [(2, 2), (3, 1)])
def test_random_corners_are_those_of_the_cpu(n_dims, features, sums_of, monkeypatch):
    """The draws follow the number of a sample in its batch, also where that is taken in slabs."""
    monkeypatch.setattr(sums, "MOST_AREAS", 1)
    options = {"stochastic_interpolation": True, "n_features_per_level": features}
    found, n = sums_of(n_dims, options), 4200
    x, dl_dy = found.batch(n)
    on_cpu = numbanet.create_encoding(n_dims, found.config, device="cpu")
    _, context = on_cpu.forward(x)
    on_cpu.backward(context, dl_dy.astype(np.float32))
    exact = np.float64(on_cpu.gradients)
    error = np.linalg.norm(found(x, dl_dy) - exact)
    assert error < 2.0**-BITS_OF_HALVES * np.linalg.norm(exact)


@pytest.mark.parametrize("n", [1, 31, 1025])
def test_any_batch_size(n, sums_of):
    found = sums_of(2, {})
    x, dl_dy = found.batch(n, seed=n)
    exact = found.exact(x, dl_dy)
    assert np.linalg.norm(found(x, dl_dy) - exact) < 2.0**-10 * np.linalg.norm(exact)


def test_inputs_beyond_the_grid(sums_of):
    """Cells below 0, whose edges' ends differ in all bits, are two records of one end each."""
    found = sums_of(2, {})
    x, dl_dy = found.batch(100)
    x = 3 * x - 1.5
    exact = found.exact(x, dl_dy)
    assert np.linalg.norm(found(x, dl_dy) - exact) < 2.0**-10 * np.linalg.norm(exact)


def test_one_entry_takes_all_samples(sums_of):
    """The largest gradients that halves hold: no sum overflows."""
    found = sums_of(2, {})
    x = np.full((900, 2), 0.37, np.float32)
    dl_dy = np.full((900, found.grid.n_outputs), 65504, np.float16)
    exact = found.exact(x, dl_dy)
    assert exact.max() > 2**24
    np.testing.assert_allclose(found(x, dl_dy), exact, rtol=2e-3, atol=1e-4 * exact.max())


def test_small_gradients_are_not_lost(sums_of):
    """Gradients over 30 powers of two; what is less than a unit is rounded without bias."""
    found = sums_of(2, {"n_levels": 1, "base_resolution": 16, "log2_hashmap_size": 14})
    x, dl_dy = found.batch(2000, spread=0)
    dl_dy = (np.sign(dl_dy) * 2.0**-24).astype(np.float16)
    dl_dy[0] = 64.0  # sets the unit, which is thousands of times the others
    signs = np.abs(dl_dy)
    total, exact = found(x, signs)[2:].sum(), found.exact(x, signs)[2:].sum()
    assert total == pytest.approx(exact, rel=0.02)
    ones = found.exact(x[1:], signs[1:])
    touched = np.flatnonzero(ones)
    mean = found(x[1:], signs[1:])[touched].sum() / ones[touched].sum()
    assert mean == pytest.approx(1, abs=0.01)


def test_gradients_are_added_where_asked(sums_of):
    found = sums_of(3, {"n_levels": 2})
    x, dl_dy = found.batch(80)
    before = np.random.default_rng(1).normal(size=found.grid.n_params).astype(np.float32)
    once = found(x, dl_dy)
    np.testing.assert_allclose(found(x, dl_dy, before), before + once, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_noted(value, sums_of):
    found = sums_of(2, {})
    x, dl_dy = found.batch(40)
    assert np.isfinite(found(x, dl_dy)).all()
    assert found.tables.noted.numpy()[0] == 0
    dl_dy[7, 1] = value
    assert not np.isfinite(found(x, dl_dy)).all()
    assert not np.isfinite(found.tables.noted.numpy()[0])


def test_the_same_bits_in_any_order(cuda_device, monkeypatch):
    """Whatever the order of the samples' records; batches that are taken in slabs agree."""
    found = Sums(cuda_device, 2, {}, monkeypatch, SMALL)
    x, dl_dy = found.batch(4200)
    first = found(x, dl_dy)
    assert np.array_equal(found(x, dl_dy), first)
    monkeypatch.setattr(sums, "MOST_AREAS", 1)
    slabs = Sums(cuda_device, 2, {}, monkeypatch, SMALL)
    np.testing.assert_allclose(slabs(x, dl_dy), first, rtol=1e-3, atol=1e-3 * np.abs(first).max())


def test_bins_that_are_full(cuda_device, monkeypatch):
    """A level of several whole bins, and one that is cut off."""
    options = {"log2_hashmap_size": 15, "base_resolution": 140, "n_levels": 2}
    found = Sums(cuda_device, 2, options, monkeypatch, SMALL)
    assert [job.n_bins for job in found.tables.grids[0].plan.binned] == [3, 4]
    assert found.tables.grids[0].plan.binned[0].size % BIN
    x, dl_dy = found.batch(500)
    exact = found.exact(x, dl_dy)
    assert np.linalg.norm(found(x, dl_dy) - exact) < 2.0**-10 * np.linalg.norm(exact)


# Within a model

MODELS = {name: TRAINED[name] for name in ("hash", "dense_3d", "wide_entries", "composite")}
MODELS["wide"] = WIDE["hash"]
TWO_GRIDS = {
    "otype": "Composite",
    "nested": [
        {**HASH, "n_levels": 1, "n_features_per_level": 1, "base_resolution": 3,
         "n_dims_to_encode": 2},
        {"otype": "Identity", "n_dims_to_encode": 1},
        {**HASH, "n_levels": 2},
    ],
}  # fmt: skip
TWO_DIMS = {
    "otype": "Composite",
    "nested": [
        {"otype": "Identity", "n_dims_to_encode": 2},
        {**HASH, "n_dims_to_encode": 2, "dims_to_encode_begin": 1},
    ],
}
MODELS["deep"] = (2, 3, "float16", TRAINED["hash"][3], mlp("CutlassMLP", 48, 4, "Tanh"), "L2")
MODELS["two_dims_of_three"] = (3, 2, "bfloat16", TWO_DIMS, mlp("FullyFusedMLP", 16, 1), "L2")
MODELS["two_grids"] = (5, 2, "float16", TWO_GRIDS, mlp("FullyFusedMLP", 16, 2), "L2")


@pytest.mark.parametrize("name", MODELS)
def test_training_is_as_exact_as_halves_allow(name, cuda_device):
    case = Case(name, cuda_device, 65, cases=MODELS, n_candidates=40)
    assert case.fused.tables.fewest > len(case.x)
    _, without = case.train(case.fused)
    case.fused.tables.fewest = 1
    (loss, gradients), launches = case.launched(case.fused, case.train)
    if launches:
        assert any(name.startswith("resident_sums") for name in launches)
        assert any(name.startswith("fused_training") for name in launches) == (name != "wide")
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    n_network = case.twin.mlp.n_params
    assert np.linalg.norm(without - gradients) < 4e-3 * np.linalg.norm(without)
    assert np.isfinite(loss)
    _, again = case.train(case.fused)
    assert np.array_equal(again[n_network:], gradients[n_network:])


@pytest.mark.parametrize("name", ["hash", "wide_entries", "two_dims_of_three", "wide"])
def test_features_from_shared_memory_are_the_same_bits(name, cuda_device, monkeypatch):
    case = Case(name, cuda_device, 65, cases=MODELS, n_candidates=40)
    tables = case.fused.tables
    tables.fewest = 1
    assert tables.given
    y, (_, gradients) = case.inference(case.fused), case.train(case.fused)
    tables.fewest_given = tables.fewest_inferred = 1
    monkeypatch.setattr(engine_module, "SLAB", 40)
    found, launches = case.launched(case.fused, case.inference)
    if launches:
        assert sum(name.startswith("resident_features") for name in launches) % 2 == 0
    assert np.array_equal(found, y)
    n_network = case.twin.mlp.n_params
    _, given = case.train(case.fused)
    assert np.array_equal(given[n_network:], gradients[n_network:])
    np.testing.assert_allclose(given[:n_network], gradients[:n_network], 1e-5, 1e-6)


def test_a_step_zeroes_nothing_twice_and_skips_what_is_not_finite(cuda_device):
    config = {
        "loss": {"otype": "L2"},
        "optimizer": {"otype": "Adam", "learning_rate": 0.02},
        "encoding": HASH,
        "network": mlp("FullyFusedMLP", 16, 1),
    }
    model = numbanet.create_from_config(2, 1, config, device=cuda_device, precision="float16")
    model.network.engine.tables.fewest = 1
    rng = np.random.default_rng(0)
    x = rng.random((100, 2)).astype(np.float32)
    y = x[:, :1] + 0.5
    losses = [float(model.trainer.training_step(x, y)) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    before = model.network.params.numpy()
    dl_dy = np.full((100, 1), 1e8, np.float32)  # infinite as a half
    with pytest.warns(RuntimeWarning, match="skipped"):
        float(model.trainer.training_step(x, None, external_dl_dy=dl_dy))
    assert np.array_equal(model.network.params.numpy(), before)
    assert model.trainer.n_skipped_steps == 1


@pytest.mark.parametrize("capability", [(8, 6), (9, 0)], ids=str)
@pytest.mark.parametrize(("n_dims", "features"), [(3, 2), (2, 4)])
@pytest.mark.usefixtures("current_assembler")
def test_kernels_have_nothing_unwanted(n_dims, features, capability):
    device = CompileOnlyDevice(capability)
    options = {**HASH, "n_features_per_level": features, "log2_hashmap_size": 19, "otype": "Grid"}
    grid = registry.create(
        "encoding", options | {"n_levels": 8, "base_resolution": 16}, default="Grid", n_dims=n_dims
    )
    tables = ModelTables(device, grid, "float16")
    assert tables.grids[0].plan.residents
    assert tables.grids[0].plan.binned
    kept = tables.give(1 << 20, 1 << 18, 1 << 28)
    tables(1 << 20, 1 << 18, kept, 1 << 30, 1.0, False)
    assert len(device.kernels) == 6
    for kernel in device.kernels:
        assert not any(re.search(pattern, kernel.ptx.text) for pattern in UNWANTED.values())
        used = kernel.cubin.resources
        assert used.spill_stores == used.spill_loads == used.local_bytes == 0, kernel.name


def test_memory_of_partial_sums_is_bounded():
    """That of a slice holds resident levels alone, also where a large level comes before them."""
    config = {
        **HASH,
        "otype": "Grid",
        "n_levels": 3,
        "base_resolution": 700,
        "log2_hashmap_size": 19,
    }
    options = config | {"per_level_scale": 0.05}
    grid = registry.create("encoding", options, default="Grid", n_dims=2)
    plan = TablePlan(Part(grid), 1 << 17)
    assert [job.level for job in plan.binned] == [0]
    assert plan.residents[0].first_param == 2 * int(grid.levels[0].size)
    assert plan.residents[0].first_sum == 0
    assert plan.n_resident_sums == 2 * sum(int(level.size) for level in grid.levels[1:])


def test_levels_that_grow_coarser(cuda_device, monkeypatch):
    options = {"base_resolution": 60, "per_level_scale": 0.21, "log2_hashmap_size": 12}
    found = Sums(cuda_device, 2, options, monkeypatch, 1 << 13)
    plan = found.tables.grids[0].plan
    assert plan.binned[0].level == 0
    assert {job.level for job in plan.residents} == {1, 2}
    x, dl_dy = found.batch(200)
    exact = found.exact(x, dl_dy)
    assert np.linalg.norm(found(x, dl_dy) - exact) < 2.0**-10 * np.linalg.norm(exact)


def test_who_is_served(cuda_device):
    """Grids alone have edges; tables of too many bins are left to others."""

    def plan(**options):
        config = {"otype": "Grid", **HASH, **options} | {"otype": "Grid"}
        grid = registry.create("encoding", config, default="Grid", n_dims=2)
        return TablePlan(Part(grid), cuda_device.max_shared_bytes)

    assert plan().is_possible
    assert not plan(log2_hashmap_size=24, base_resolution=4096).is_possible
    large = plan(log2_hashmap_size=24, base_resolution=4096).part.encoding
    assert tables_module.tables_of(cuda_device, large, "float16") is None
    few = plan(interpolation="Nearest").n_reductions
    assert plan().n_reductions == 4 * few  # corners
    drawn = plan(stochastic_interpolation=True).n_reductions
    assert drawn == plan_module.PRICE_OF_DRAW * few
    assert TURING < (8, 0)  # which has no fused kernels that could keep gradients of features
