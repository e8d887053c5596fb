"""numbanet.export and the command: files, names, precisions, and what is refused."""

import numpy as np
import pytest

import numbanet
from numbanet.app.command_line import main
from numbanet.exports.packing import packed


@pytest.fixture(scope="module")
def model():
    config = {"encoding": {"otype": "Identity"}, "network": {"n_neurons": 16, "n_hidden_layers": 1}}
    return numbanet.create_from_config(2, 3, config, device="cpu")


def test_the_ending_tells_the_language(model, tmp_path):
    for ending, extra in ((".h", []), (".wgsl", [".bin"]), (".glsl", [".bin"]), (".html", [])):
        path = tmp_path / f"My model-2{ending}"
        files = numbanet.export(model, path)
        assert files == [str(path), *(str(path.with_suffix(each)) for each in extra)]
        assert "my_model_2" in path.read_text()


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("a__b", "a_b"), ("a__MODEL__b", "a_model_b"), ("gl_x", "model_gl_x"), ("日本", "model"),
        ("WebGL_x", "model_webgl_x"), ("2x", "model_2x"), ("_", "model"), ("a" * 200, "a" * 60),
    ],
)  # fmt: skip
def test_names_from_paths_are_allowed_in_every_language(model, stem, name, tmp_path):
    numbanet.export(model, tmp_path / f"{stem}.glsl")
    assert f"void {name}_evaluate(" in (tmp_path / f"{stem}.glsl").read_text()


def test_nothing_is_written_where_a_file_cannot_be(model, tmp_path):
    with pytest.raises(ValueError, match="is where the parameters go"):
        numbanet.export(model, tmp_path / "m.bin", "wgsl")
    assert not list(tmp_path.iterdir())
    (tmp_path / "m.wgsl").mkdir()
    (tmp_path / "m.bin").write_text("mine")
    with pytest.raises(IsADirectoryError):
        numbanet.export(model, tmp_path / "m.wgsl")
    assert (tmp_path / "m.bin").read_text() == "mine"
    empty = numbanet.create_encoding(2, {"otype": "Empty"}, device="cpu")
    with pytest.raises(ValueError, match="without outputs has no WGSL"):
        numbanet.export(empty, tmp_path / "e.wgsl")
    assert len(list(tmp_path.iterdir())) == 2


def test_numbers_in_a_file_are_those_of_the_model(model, tmp_path):
    _, numbers = numbanet.export(model, tmp_path / "m.h", embed=False)
    found = np.fromfile(numbers, "<f4")
    np.testing.assert_array_equal(found, np.asarray(model.trainer.inference_params))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "rust"}, "to: 'rust' is not allowed; use one of c, wgsl"),
        ({"precision": "int4"}, "precision: 'int4'; use one of float32"),
        ({"name": "2x"}, "name: '2x' is not allowed"),
        ({"name": "a__b"}, "name: 'a__b' is not allowed; use letters, digits and single _"),
        ({"name": "a_"}, "name: 'a_' is not allowed"),
        ({"name": "gl_x"}, "name: 'gl_x' is not allowed"),
    ],
)
def test_what_is_not_allowed_is_refused(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        numbanet.export(model, tmp_path / "m.h", **options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="ends in none of"):
        numbanet.export(model, tmp_path / "m.txt")
    with pytest.raises(TypeError, match="int is not allowed"):
        numbanet.export(3, tmp_path / "m.h")


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not all finite"):
        packed(np.array([np.nan]), "float32")
    with pytest.raises(ValueError, match="float16 ends at 65504, and a parameter is 1e"):
        packed(np.array([1e6]), "float16")


def test_int8_is_off_by_half_a_step_at_most():
    params = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    params[128:192] = 0
    found = packed(params, "int8")
    largest = np.abs(np.append(params, np.zeros(24)).reshape(-1, 64)).max(1)
    steps = np.repeat(largest / 127, 64)[:1000]
    assert (np.abs(found.unpacked() - params) <= 0.5001 * steps).all()
    assert len(found.tobytes()) == 1000 + 16 * 4


def test_the_command_writes_what_the_function_does(model, tmp_path, capsys):
    model.save(tmp_path / "m.safetensors")
    command = ["export", str(tmp_path / "m.safetensors"), str(tmp_path / "one.h"), "--name", "net"]
    assert main(command) == 0
    assert "wrote" in capsys.readouterr().out
    numbanet.export(model, tmp_path / "two.h", name="net")
    assert (tmp_path / "one.h").read_text() == (tmp_path / "two.h").read_text()
    assert main([*command[:2], str(tmp_path / "m.xyz")]) == 1
    assert "ends in none of" in capsys.readouterr().err
