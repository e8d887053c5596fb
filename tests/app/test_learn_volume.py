"""Volumes and time series, compressed to a network."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.app.errors import UsageError
from numbanet.app.files import write_json
from numbanet.app.learn_volume import learn_volume
from numbanet.app.volume_file import read_volume
from numbanet.app.volume_training import VolumeLearning, voxel_job
from numbanet.targets import target_for

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12, "base_resolution": 4},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
}
SMALL = {"batch_size": 512, "seed": 7, "device": "cpu"}


def blob(*shape):
    """A smooth volume."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.exp(-3 * sum((axis - 0.2) ** 2 for axis in axes))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, (1000 * blob(12, 16, 20) - 300).astype(np.int16))
    return path


def test_a_volume_is_learned(file, tmp_path):
    output = tmp_path / "out"
    result = learn_volume(file, CONFIG, n_steps=300, output=output, **SMALL)
    assert result.metrics["psnr"] > 30
    report = json.loads(result.report.read_text(), parse_constant=pytest.fail)
    data = {"name": "volume.npy", "shape": [12, 16, 20], "n_measured": 3840, "n_bytes": 7680}
    assert data.items() <= report["data"].items()
    array = np.load(file)
    assert (report["data"]["low"], report["data"]["high"]) == (array.min(), array.max())
    assert report["ratio"] == 7680 / (4 * report["model"]["n_params"])
    model = numbanet.load(result.snapshot, device="cpu")
    places = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), -1).reshape(-1, 3)
    learned = np.clip(model(((places + 0.5) / array.shape).astype("f4"))[:, 0], 0, 1)
    scaled = (array.reshape(-1) - array.min()) / (array.max() - array.min())
    psnr = -10 * np.log10(np.mean((learned - scaled) ** 2))
    assert result.metrics["psnr"] == pytest.approx(psnr, abs=1e-3)
    assert {path.name for path in output.iterdir()} == {*report["files"]}
    with Image.open(result.pictures[-1]) as one, Image.open(result.pictures[-2]) as other:
        reference, last = np.asarray(one, float), np.asarray(other, float)
    assert reference.shape == last.shape == (2 * 240 + 8, 3 * 240 + 16, 3)
    assert np.abs(reference - last)[:240].mean() < 10  # of 255: the slices; below are the errors


def test_a_time_series_goes_on(tmp_path):
    path = tmp_path / "series.npy"
    np.save(path, np.stack([blob(8, 8, 8) * t for t in (0.5, 1, 2, 1)]).astype(np.float16))
    whole = learn_volume(path, CONFIG, n_steps=40, output=tmp_path / "a", **SMALL)
    first = learn_volume(path, CONFIG, n_steps=25, output=tmp_path / "b", **SMALL)
    last = learn_volume(path, n_steps=40, output=tmp_path / "b", resume=first.snapshot)
    one, two = (numbanet.load(each.snapshot, device="cpu") for each in (whole, last))
    assert one.network.n_input_dims == 4
    np.testing.assert_array_equal(one.network.params, two.network.params)
    assert last.metrics == whole.metrics
    assert whole.metrics["psnr"] > 18
    with pytest.raises(UsageError, match="40 steps already"):
        learn_volume(path, n_steps=40, resume=last.snapshot)


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 3, 4, 5), (1, 1, 1)])
def test_voxels_are_those_of_the_array(shape):
    array = np.random.default_rng(0).random(shape, np.float32)
    n, n_dims, target = 500, len(shape), target_for("cpu")
    uniform = np.random.default_rng(1).random((n, n_dims), np.float32)
    uniform[0] = np.float32(1) - np.float32(2**-24)  # rounds up to the size of some axis
    positions, values = target.empty(n, n_dims), target.empty(n, 1)
    sizes = (1,) * (4 - n_dims) + shape
    voxel_job(n_dims)(target, n, uniform, positions, values, array.reshape(-1), *sizes)
    places = np.minimum((uniform * np.array(shape, "f4")).astype(int), np.array(shape) - 1)
    np.testing.assert_allclose(positions, (places + 0.5) / shape, rtol=1e-6)
    np.testing.assert_array_equal(values[:, 0], array[tuple(places.T)])


def test_default_configs_fit_the_file(tmp_path):
    for shape in ((1, 1, 1), (3, 200, 5), (64, 64, 64), (4, 8, 8, 8)):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
        volume = read_volume(tmp_path / "a.npy")
        config = VolumeLearning.config_for(volume)
        model = numbanet.create_from_config(len(shape), 1, config, device="cpu")
        if np.prod(shape) > 10**5:
            assert volume.n_bytes / 20 < 4 * model.network.n_params < volume.n_bytes / 4


def content(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


WHOLE = content(np.zeros((4, 4, 4)))


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("a.npy", b"", "no .npy file"),
        ("a.npy", WHOLE[:-8], "no .npy file"),
        ("a.npy", WHOLE.replace(b"(4, 4, 4)", b"(4, 4, 9)"), "no .npy file"),
        ("a.npy", WHOLE.replace(b"False", b"oops("), "no .npy file"),
        ("a.npy", content(np.array([{}] * 8, object).reshape(2, 2, 2)), "no .npy file"),
        ("a.npy", content(np.zeros((4, 4))), "use .z, y, x."),
        ("a.npy", content(np.zeros((0, 4, 4))), "shape"),
        ("a.npy", content(np.zeros((2, 2, 2), complex)), "use real ones"),
        ("a.npy", content(np.full((2, 2, 2), "x")), "use real ones"),
        ("a.npy", content(np.full((2, 2, 2), np.nan)), "infinite or no numbers"),
        ("a.npy", content(np.array([[[-np.inf, 1.0]]])), "infinite or no numbers"),
        ("a.npy", content(np.array([[[-1.7e308, 1.7e308]]])), "too far apart"),
        ("a.npz", None, "an archive"),
        ("missing.npy", None, "No such file"),
    ],
)
def test_files_that_are_no_volumes(tmp_path, name, written, message):
    path = tmp_path / name
    if written is not None:
        path.write_bytes(written)
    elif name == "a.npz":
        np.savez(path, a=np.zeros((2, 2, 2)))
    with pytest.raises(UsageError, match=message):
        learn_volume(path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(command, file, tmp_path):
    arguments = ["--steps", 2, "--batch-size", 512, "--device", "cpu", "--output", tmp_path / "out"]
    changed = ["--set", "encoding.n_levels=4", "--set", "network.n_neurons=16"]
    code, out, err = command("learn-volume", file, *arguments, *changed, "--json")
    assert code == 0, err
    assert json.loads(out)["ratio"] > 0
    code, out, err = command("learn-volume", tmp_path)
    assert code == 2
    assert "Is a directory" in err


def test_reports_are_json_whatever_was_measured(tmp_path):
    values = {"psnr": float("inf"), "rows": [{"loss": float("nan")}, (1, -math.inf)], "name": "a"}
    write_json(tmp_path / "report.json", values)
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert found == {"psnr": None, "rows": [{"loss": None}, [1, None]], "name": "a"}
