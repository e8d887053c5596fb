"""C headers: every component, every precision, without a warning, clean under sanitizers."""

import c_program
import exported_models as models
import laws
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbanet.exports.errors import ExportError
from numbanet.exports.packing import packed
from numbanet.exports.writing import files_of

needs_compiler = pytest.mark.skipif(not c_program.COMPILERS, reason="needs gcc or clang")


def outputs(example, x, folder, precision="float32", compiler=None, embed=True, options=("-O1",)):
    numbers = packed(example.params, precision)
    files = files_of("c", example, numbers, "model", "a model", embed, "auto")
    header, params = folder / "model.h", None
    header.write_bytes(files["program"])
    if not embed:
        params = folder / "model.bin"
        params.write_bytes(files["params"])
    return c_program.run(
        header, x, example.n_output_dims, compiler=compiler or c_program.COMPILERS[0],
        params=params, scales=precision == "int8", options=options,
    )  # fmt: skip


@needs_compiler
@pytest.mark.parametrize(("otype", "k"), models.ENCODINGS)
def test_every_encoding_agrees(otype, k, tmp_path):
    example, twin = models.encoding_example(otype, k)
    config, sizes = laws.EXAMPLES["encoding", otype][k]
    source = naive.encoding({"otype": otype, **config}, sizes["n_dims"])
    x = laws.inputs(source, 33, np.random.default_rng(1)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    models.assert_agrees(outputs(example, x, tmp_path), expected)


@needs_compiler
@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_agrees(activation, tmp_path):
    network = {"n_neurons": 16, "n_hidden_layers": 1, "activation": activation}
    network["output_activation"] = activation
    example, twin = models.network_example({"otype": "Identity"}, 3, 2, network)
    x = np.random.default_rng(0).random((33, 3)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    models.assert_agrees(outputs(example, x, tmp_path), expected)


@needs_compiler
@settings(max_examples=8)
@given(
    precision=st.sampled_from(["float32", "float16", "int8"]),
    embed=st.booleans(),
    n_neurons=st.sampled_from([16, 32, 48]),
    n_hidden_layers=st.integers(1, 3),
    n_outputs=st.sampled_from([1, 3, 17]),
    compiler=st.sampled_from(c_program.COMPILERS or ["none"]),
)
def test_models_agree_in_every_precision(
    tmp_path_factory, precision, embed, n_neurons, n_hidden_layers, n_outputs, compiler
):
    network = {"n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}
    example, twin = models.network_example(models.HASH, 2, n_outputs, network)
    x = np.random.default_rng(0).random((21, 2)).astype(np.float32)
    expected = models.expected_of(twin, example.params, precision, x)
    folder = tmp_path_factory.mktemp("model")
    found = outputs(example, x, folder, precision, compiler, embed)
    models.assert_agrees(found, expected)


def grids(draw):
    return {
        "otype": draw(st.sampled_from(["HashGrid", "DenseGrid", "TiledGrid"])),
        "n_levels": draw(st.integers(1, 3)),
        "n_features_per_level": draw(st.sampled_from([1, 2, 4])),
        "log2_hashmap_size": draw(st.integers(4, 8)),
        "base_resolution": draw(st.integers(2, 6)),
        "per_level_scale": draw(st.sampled_from([1.3, 2.0])),
        "interpolation": draw(st.sampled_from(["Linear", "Smoothstep", "Nearest"])),
    }


@st.composite
def encodings(draw):
    """An encoding of two inputs, or several beside each other."""
    kinds = [
        grids(draw),
        {"otype": "OneBlob", "n_bins": draw(st.sampled_from([2, 8, 32]))},
        {"otype": "Frequency", "n_frequencies": draw(st.integers(1, 5))},
        {"otype": "TriangleWave", "n_frequencies": draw(st.integers(1, 5))},
        {"otype": "Identity", "scale": 1.5},
    ]
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2))
    if len(chosen) == 1:
        return chosen[0], 2
    parts = [{**chosen[0], "n_dims_to_encode": 2}, chosen[1]]
    return {"otype": "Composite", "nested": parts}, 4


@needs_compiler
@settings(max_examples=8)
@given(encoding=encodings(), activation=st.sampled_from(models.ACTIVATIONS))
def test_random_models_agree(tmp_path_factory, encoding, activation):
    config, n_inputs = encoding
    network = {"n_neurons": 16, "n_hidden_layers": 1, "activation": activation}
    example, twin = models.network_example(config, n_inputs, 2, network)
    source = naive.Model(n_inputs, 2, {"encoding": config, "network": network}).encoding
    x = laws.inputs(source, 17, np.random.default_rng(1)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    found = outputs(example, x, tmp_path_factory.mktemp("model"))
    models.assert_agrees(found, expected)


@needs_compiler
def test_many_levels_agree(tmp_path):
    network = {"n_neurons": 16, "n_hidden_layers": 1}
    example, twin = models.network_example({**models.HASH, "n_levels": 7}, 2, 3, network)
    x = np.random.default_rng(0).random((21, 2)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    models.assert_agrees(outputs(example, x, tmp_path), expected)


@needs_compiler
def test_nothing_is_read_or_written_out_of_place(tmp_path):
    network = {"n_neurons": 16, "n_hidden_layers": 2}
    example, _ = models.network_example(models.HASH, 2, 3, network)
    extreme = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, 0.0, 1.0, -0.5, 7.0]
    x = np.array([(a, b) for a in extreme for b in extreme], np.float32)
    found = outputs(
        example, x, tmp_path, "int8", embed=False, options=("-g", *c_program.SANITIZERS)
    )
    finite = np.isfinite(x).all(1)
    assert np.isnan(found[~finite]).all()
    assert np.isfinite(found[finite]).all()


def test_what_has_no_translation_says_where_it_stands():
    from test_translation import Strange

    encoding = Strange(n_dims=2)
    example = models.Example(encoding, None, [])
    with pytest.raises(ExportError, match=r"Strange\.forward.*test_translation\.py:\d+.*float64"):
        files_of("c", example, packed(example.params, "float32"), "m", "m", True, "auto")
