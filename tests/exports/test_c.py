"""C headers: every component, every precision, without a warning, clean under sanitizers."""

from functools import partial

import c_program
import exported_models as models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbanet.exports.packing import packed
from numbanet.exports.writing import files_of

needs_compiler = pytest.mark.skipif(not c_program.COMPILERS, reason="needs gcc or clang")


def outputs(
    example, x, precision="float32", *, folder, compiler=None, embed=True, options=("-O1",)
):
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
    models.assert_encoding_agrees(partial(outputs, folder=tmp_path), otype, k)


@needs_compiler
@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_agrees(activation, tmp_path):
    models.assert_activation_agrees(partial(outputs, folder=tmp_path), activation)


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
    folder = tmp_path_factory.mktemp("model")
    run = partial(outputs, folder=folder, compiler=compiler, embed=embed)
    models.assert_model_agrees(run, precision, 21, n_outputs, **network)
