"""Levels of grids: views, lattices of features, initial values, lists of resolutions, resizing."""

import models
import numpy as np
import pytest
from composed_models import COMPOSED
from laws import assert_close
from models import HASH

import numbanet

GRIDS = {
    "hash": HASH,
    "listed": {**HASH, "resolutions": [5, 17, 3, 4]},
    "per axis": {**HASH, "resolutions": [[5, 3], 4, [9, 30], [2, 7]]},
    "tiled": {**HASH, "otype": "TiledGrid"},
    "dense": {**HASH, "otype": "DenseGrid", "n_levels": 2},
}


def create(name, n_dims=2, **options):
    encoding = numbanet.create_encoding(n_dims, GRIDS[name], device="cpu", **options)
    encoding.params = np.random.default_rng(0).normal(size=encoding.n_params)
    return encoding


def shape_of(level):
    return np.broadcast_to(level.resolution, 2)


def lattice(level):
    axes = np.meshgrid(level.vertices(0), level.vertices(1), indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("name", GRIDS)
def test_levels_are_what_the_grid_gives_at_their_vertices(name):
    """So offsets, sizes, resolutions and the order of axes are those that the kernels know."""
    encoding = create(name)
    levels, end = encoding.levels, 0
    for k, level in enumerate(levels):
        assert level.name == f"levels.{k}"
        assert level.offset == end
        end += level.n_params
        assert np.shares_memory(level.params, encoding.params)
        values = level.read()
        assert values.shape == (*shape_of(level), 2)
        features = encoding(lattice(level))[:, 2 * k : 2 * k + 2]
        assert_close(features.reshape(values.shape), values, 1e-4)
    assert end == encoding.n_params
    if name == "per axis":
        assert [level.resolution for level in levels] == [(5, 3), 4, (9, 30), (2, 7)]
        assert levels[2].scale == (8, 29)
        assert levels[2].is_hashed
    if name == "listed":
        assert [level.resolution for level in levels] == [5, 17, 3, 4]
        assert levels[1].is_hashed
        assert not levels[0].is_hashed


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_written_is_read(name):
    encoding = create(name)
    before = np.array(encoding.params)
    for level in encoding.levels:
        level.write(level.read())
        assert_close(encoding.params, before, 1e-6)
        values = np.random.default_rng(1).normal(size=level.read().shape).astype(np.float32)
        level.write(values)
        found = level.read()
        if not level.is_hashed and level.size >= np.prod(shape_of(level)):
            np.testing.assert_array_equal(found, values)
        entries = level.read().reshape(-1, 2)
        for entry in np.unique(entries, axis=0)[:20]:
            shared = (entries == entry).all(axis=1)
            assert_close(values.reshape(-1, 2)[shared].mean(axis=0), entry, 1e-5)
        level.params[:] = before[level.offset : level.offset + level.n_params].reshape(-1, 2)


def test_levels_of_other_models_have_their_names():
    model = models.create("hash")
    assert [level.name for level in model.network.levels][:2] == [
        "encoding.levels.0",
        "encoding.levels.1",
    ]
    model.trainer.training_step(*models.batch_of("hash", 50))
    last = model.network.levels[-1]
    whole = np.asarray(model.network.named_gradients()["encoding.params"])
    np.testing.assert_array_equal(np.ravel(last.gradients), whole[-last.n_params :])
    nested = models.create("composite").network.levels
    assert [level.name for level in nested] == ["encoding.1.levels.0", "encoding.1.levels.1"]
    composed = numbanet.create_from_config(*COMPOSED["shared"], device="cpu").network
    assert [level.name for level in composed.levels][:1] == ["here.levels.0"]
    assert "here.levels.3: resolution" in repr(composed.levels[3])
    assert models.create("identity").network.levels == ()


def test_what_cannot_be_written_is_refused():
    level = create("hash").levels[0]
    before, shape = np.array(level.params), level.read().shape
    for values, message in (
        (np.zeros(3), r"expected shape \[4, 4, 2\], got \[3\]"),
        (np.full(shape, np.nan), "infinite or NaN"),
        (np.full(shape, 1e300), "infinite or NaN"),
        ("text", "no real numbers"),
        (np.zeros(shape, complex), "no real numbers"),
        (np.zeros(shape)[:, :, :1], "expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            level.write(values)
    np.testing.assert_array_equal(level.params, before)
    huge = numbanet.create_encoding(
        7, {**HASH, "resolutions": [100], "n_levels": 1}, device="cpu"
    ).levels[0]
    with pytest.raises(ValueError, match="vertices, more than"):
        huge.read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [4, 0]}, r"encoding\.resolutions\[1\]: 0 is not allowed"),
        ({"resolutions": [4, 2.5]}, r"resolutions\[1\]"),
        ({"resolutions": [True]}, r"resolutions\[0\]"),
        ({"resolutions": []}, "resolutions: expected a list"),
        ({"resolutions": 16}, "resolutions: expected a list"),
        ({"resolutions": [4, [4, 0]]}, r"encoding\.resolutions\[1\]\[1\]: 0 is not allowed"),
        ({"resolutions": [4, [4, [5]]]}, r"resolutions\[1\]\[1\]: \[5\] is not allowed"),
        ({"resolutions": [[4, 5, 6]]}, r"resolutions\[0\].*one for each of 2 inputs"),
        ({"resolutions": [[4]]}, r"resolutions\[0\].*one for each of 2 inputs"),
        ({"resolutions": [[]]}, r"resolutions\[0\].*one for each of 2 inputs"),
        ({"resolutions": [[2**29, 2**29]] * 3, "type": "Dense"}, "n_levels"),
        ({"resolutions": [4] * 129}, "resolutions: expected a list"),
        ({"resolutions": [4, 8], "n_levels": 3}, "one for each of n_levels, which are 3"),
        ({"initial_range": -1.0}, "initial_range"),
        ({"initial_range": float("inf")}, "initial_range"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(numbanet.ConfigError, match=message):
        numbanet.create_encoding(2, {"otype": "HashGrid", **options}, device="cpu")


def test_largest_resolutions_are_taken():
    """Where float32 has no scale for one, the lattice has fewer vertices, not more."""
    asked = [2**24, 2**24 + 4, [2**30, 5], 2**30]
    encoding = numbanet.create_encoding(2, {**HASH, "resolutions": asked}, device="cpu")
    found = [level.resolution for level in encoding.levels]
    assert found == [2**24, 2**24 + 3, (2**30 - 63, 5), 2**30 - 63]


def test_equal_resolutions_along_all_axes_are_one():
    """So the same grid has the same kernels."""
    encoding = numbanet.create_encoding(
        2, {**HASH, "resolutions": [[4, 4], [6, 6]], "n_levels": 2}, device="cpu"
    )
    assert encoding.encoding.resolutions == (4, 6)


@pytest.mark.parametrize("options", [{"log2_hashmap_size": 9}, {"n_levels": 2}])
def test_grids_with_resolutions_per_axis_are_resized(options):
    encoding, x = create("per axis"), np.random.default_rng(0).uniform(0, 0.9, (100, 2))
    resized = numbanet.resize_grid(encoding, **options)
    n = resized.n_output_dims
    assert_close(resized(x), encoding(x)[:, :n], 1e-5)


@pytest.mark.parametrize("width", [0, 1e-4, 2.0])
def test_initial_values_are_within_the_range(width):
    config = {**HASH, "initial_range": width}
    params = np.asarray(numbanet.create_encoding(2, config, device="cpu").params)
    assert np.abs(params).max() <= width
    assert (np.abs(params).max() > 0.9 * width) == (width > 0)


@pytest.mark.parametrize("log2_size", [4, 6, 9, 12])
def test_larger_tables_compute_the_same(log2_size):
    """Also where levels that were hashed have room for all vertices then; smaller ones forget."""
    x = np.random.default_rng(0).random((200, 2))
    model, _ = models.create_lively("hash")
    resized = numbanet.resize_grid(model.network, log2_hashmap_size=log2_size)
    assert resized.encoding.log2_hashmap_size == log2_size
    if log2_size >= HASH["log2_hashmap_size"]:
        assert_close(resized(x), model.network(x), 1e-5)
        back = numbanet.resize_grid(resized, log2_hashmap_size=HASH["log2_hashmap_size"])
        assert_close(back(x), model.network(x), 1e-5)
    else:
        assert resized.n_params < model.network.n_params
        assert np.isfinite(resized(x)).all()
        coarse = resized.levels[0]
        if coarse.size == model.network.levels[0].size:
            np.testing.assert_array_equal(coarse.params, model.network.levels[0].params)


@pytest.mark.parametrize("n_levels", [1, 4, 6, 12])
def test_more_levels_compute_the_same(n_levels):
    x = np.random.default_rng(0).random((200, 2))
    model, _ = models.create_lively("hash")
    resized = numbanet.resize_grid(model.network, n_levels=n_levels)
    assert len(resized.levels) == n_levels
    if n_levels >= 4:
        assert_close(resized(x), model.network(x), 1e-5)
    encoding = create("hash")
    cut = numbanet.resize_grid(encoding, n_levels=n_levels)
    n = min(n_levels, 4) * 2
    np.testing.assert_array_equal(cut(x)[:, :n], encoding(x)[:, :n])
    assert not np.asarray(cut(x))[:, n:].any()


def test_what_cannot_be_resized_is_refused():
    with pytest.raises(TypeError, match="expected a network with a grid"):
        numbanet.resize_grid(models.create("identity").network, n_levels=3)
    with pytest.raises(TypeError, match="expected a network with a grid"):
        numbanet.resize_grid(3, n_levels=3)
    with pytest.raises(TypeError, match=r"got .*; use its network"):
        numbanet.resize_grid(models.create("hash"), n_levels=3)
    for name in ("tiled", "dense"):
        with pytest.raises(numbanet.ConfigError, match="log2_hashmap_size: a grid of type"):
            numbanet.resize_grid(create(name), log2_hashmap_size=9)
    for wrong in (9.0, "9", [9]):
        with pytest.raises(numbanet.ConfigError, match="log2_hashmap_size: expected int"):
            numbanet.resize_grid(create("hash"), log2_hashmap_size=wrong)
    with pytest.raises(TypeError, match="without padding"):
        numbanet.resize_grid(create("hash", alignment=16), n_levels=3)
    with pytest.raises(numbanet.ConfigError, match="cannot have more"):
        numbanet.resize_grid(create("listed"), n_levels=9)
    for wrong in (0, 2.5, True, 40):
        with pytest.raises(ValueError, match=r"log2_hashmap_size|n_levels"):
            numbanet.resize_grid(create("hash"), n_levels=wrong, log2_hashmap_size=wrong)


def test_an_axis_that_does_not_exist_is_refused():
    for dim in (2, -3, 1.0, "x"):
        with pytest.raises(ValueError, match=r"dim: .* is no input; use 0 to 1"):
            create("hash").levels[0].vertices(dim)


def test_arrays_are_lists_of_options():
    resolutions = np.array([5, 17, 3, 4])
    found = numbanet.create_encoding(2, {**HASH, "resolutions": resolutions}, device="cpu")
    assert found.encoding == create("listed").encoding
