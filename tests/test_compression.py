"""Tables in few bits: what kernels read, what is trained, and what snapshots hold."""

import models
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import numbanet
from numbanet.quantization import Quantized, packed, packed_shapes, quantize, unpacked

N_MATRIX = 3 * 16 * 16
NAMES = ["Int8", "OneBit"]
BITS = {"Int8": 8, "OneBit": 1}


def config_of(compression, **optimizer):
    config = models.config_of("hash")
    config["encoding"]["compression"] = compression
    return {**config, "optimizer": {"otype": "Adam", "learning_rate": 1e-2, **optimizer}}


def create(compression, device="cpu", **options):
    config = config_of(compression)
    return numbanet.create_from_config(2, 3, config, device=device, **options)


def naive_values(w, bits):
    """In float64, without the rounding of the scale."""
    if bits == 1:
        return np.where(w < 0, -1, 1) * np.abs(w).mean()
    scale = np.abs(w).max() / 127
    return scale * np.rint(w / scale)


arrays = st.tuples(st.integers(1, 3000), st.integers(0, 99), st.floats(-12, 12)).map(
    lambda each: (np.random.default_rng(each[1]).normal(size=each[0]) * 10 ** each[2]).astype(
        np.float32
    )
)


@given(arrays, st.sampled_from([1, 8]))
def test_values_are_those_of_the_formulas(w, bits):
    level = (Quantized(0, len(w), bits),)
    found, size = quantize(w, level), np.abs(w).max()
    if bits == 1:
        np.testing.assert_allclose(found, naive_values(w.astype(float), 1), rtol=3e-5)
    else:
        assert np.abs(found - w).max() <= 0.503 * size / 127
        assert len(np.unique(found)) <= 255
    np.testing.assert_array_equal(quantize(found, level), found)
    np.testing.assert_array_equal(unpacked(packed(found, level), len(w), level), found)
    shapes = {name: array.shape for name, array in packed(found, level).items()}
    assert shapes == packed_shapes(len(w), level)


def test_nothing_becomes_of_zeros():
    zeros = np.zeros(9, np.float32)
    for bits in (1, 8):
        level = (Quantized(0, 9, bits),)
        np.testing.assert_array_equal(quantize(zeros, level), 0)
        np.testing.assert_array_equal(unpacked(packed(zeros, level), 9, level), 0)


@pytest.mark.parametrize("name", NAMES)
def test_each_level_has_a_scale_of_its_own(name):
    """And matrices are left as they are."""
    model, rng = create(name), np.random.default_rng(0)
    model.network.params = params = rng.normal(size=model.network.n_params).astype(np.float32)
    found = model.network.parameters.current()
    np.testing.assert_array_equal(found[:N_MATRIX], params[:N_MATRIX])
    for level in model.network.encoding.levels:
        first = N_MATRIX + 2 * int(level.offset)
        own = slice(first, first + 2 * int(level.size))
        expected = naive_values(params[own].astype(float), BITS[name])
        limit = 1e-4 if name == "OneBit" else 0.01 * np.abs(params[own]).max()
        np.testing.assert_allclose(found[own], expected, atol=limit)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_straight_through(name):
    """Those at the values that kernels read are of the parameters themselves."""
    model, plain = create(name), create("None")
    rng, (x, y) = np.random.default_rng(0), models.batch_of("hash", 200)
    model.network.params = rng.normal(size=model.network.n_params).astype(np.float32)
    plain.network.params = model.network.parameters.current()
    losses = [
        float(each.trainer.training_step(x, y, run_optimizer=False)) for each in (model, plain)
    ]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(model.network.gradients, plain.network.gradients)
    np.testing.assert_array_equal(model(x), plain(x))
    before = model.network.params.copy()
    model.trainer.training_step(x, y)
    moved = model.network.params - before
    assert (np.abs(moved[model.network.gradients != 0]) > 1e-3).all()


@pytest.mark.parametrize("name", NAMES)
def test_compressed_tables_learn(name):
    model = create(name)
    for k in range(150):
        loss = float(model.trainer.training_step(*models.batch_of("hash", 500, k)))
    assert loss < {"Int8": 2e-3, "OneBit": 1e-2}[name]


@pytest.mark.parametrize("name", [*NAMES, "None"])
def test_snapshots_for_inference_are_small(name, tmp_path):
    model = create(name)
    for k in range(3):
        model.trainer.training_step(*models.batch_of("hash", 100, k))
    model.save(tmp_path / "small", {"a": 1}, for_inference=True)
    model.save(tmp_path / "whole")
    stored = safetensors.numpy.load_file(tmp_path / "small")
    n_table = model.network.n_params - N_MATRIX
    if name == "None":
        assert set(stored) == {"params"}
    else:
        assert stored["params"].size == N_MATRIX
        assert stored["codes"].nbytes == n_table * BITS[name] // 8
        assert stored["scales"].size == 4
    x = models.batch_of("hash", 50)[0]
    for file in ("small", "whole"):
        loaded = numbanet.load(tmp_path / file, device="cpu")
        np.testing.assert_array_equal(loaded(x), model(x))
    again = create(name, seed=3)
    assert again.load(tmp_path / "small") == {"a": 1}
    np.testing.assert_array_equal(again(x), model(x))
    assert again.trainer.n_steps == 0
    again.trainer.training_step(*models.batch_of("hash", 100))
    assert (again(x) != model(x)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": np.full(4, -1, np.float32)}, "4 scales of tables are negative, or too large"),
        ({"scales": np.full(4, np.nan, np.float32)}, "4 numbers of scales are infinite or NaN"),
        ({"codes": np.zeros(3, np.uint8)}, r"tensor 'codes' is U8\[3\], expected U8\["),
        ({"codes": np.zeros(544, np.float32)}, r"tensor 'codes' is F32\[544\], expected U8\["),
    ],
)
def test_damaged_tables_are_refused(change, message, tmp_path):
    from numbanet.snapshot import write_snapshot

    model = create("Int8")
    model.save(tmp_path / "file", for_inference=True)
    with safetensors.safe_open(tmp_path / "file", framework="numpy") as file:
        header = file.metadata()["header"]
    tensors = {**safetensors.numpy.load_file(tmp_path / "file"), **change}
    import json

    write_snapshot(tmp_path / "file", tensors, json.loads(header))
    with pytest.raises(numbanet.SnapshotError, match=message):
        numbanet.load(tmp_path / "file", device="cpu")


def test_averages_are_compressed_for_inference():
    config = config_of("OneBit")
    config["optimizer"] = {"otype": "EMA", "decay": 0.5, "nested": config["optimizer"]}
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    for k in range(3):
        model.trainer.training_step(*models.batch_of("hash", 100, k))
    x, plain = models.batch_of("hash", 20)[0], create("None")
    values = quantize(np.array(model.trainer.inference_params), model.network.quantized)
    np.testing.assert_array_equal(model(x), plain.network(x, values))


def test_tables_within_composites_are_compressed():
    grid = {**models.HASH, "n_levels": 2, "compression": "OneBit"}
    nested = [{"otype": "Identity", "n_dims_to_encode": 1}, {**models.HASH, "n_levels": 1,
              "n_dims_to_encode": 1}, {**grid, "n_dims_to_encode": 2}]  # fmt: skip
    encoding = numbanet.create_encoding(4, {"otype": "Composite", "nested": nested}, device="cpu")
    first, second = encoding.quantized
    assert (first.end, second.end) == (second.first, encoding.n_params)
    assert first.first == 2 * int(encoding.encoding.nested[1].encoding.levels[0].size)


def test_no_compression_may_be_null():
    grid = {**models.HASH, "n_levels": 2, "compression": None}
    found = numbanet.create_encoding(2, grid, device="cpu")
    assert found.encoding.compression == "None"
    for wrong in (8, "int4", []):
        with pytest.raises(numbanet.ConfigError, match=r"^encoding\.compression: "):
            numbanet.create_encoding(2, {**grid, "compression": wrong}, device="cpu")
