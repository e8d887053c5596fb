"""The job learn-field, called from Python and as a command."""

import json

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import numbanet
from numbanet import learn_field
from numbanet.app.command_line import main
from numbanet.app.errors import AppError, UsageError
from numbanet.app.fields import field_training, scene_data
from numbanet.app.fields.field import SIZES as FIELD_SIZES
from numbanet.app.fields.field import RadianceField, config_for
from numbanet.app.fields.learner import UPDATE_EVERY, FieldLearner
from numbanet.app.fields.loading import load_field
from numbanet.app.fields.preparing import merged
from numbanet.app.fields.scene_data import made_scene
from numbanet.app.fields.views import Views
from numbanet.snapshot import SnapshotError, open_snapshot, write_snapshot
from numbanet.targets import target_for

CONFIG = {
    "density": {
        "encoding": {"n_levels": 6, "log2_hashmap_size": 11, "per_level_scale": 1.6},
        "network": {"n_neurons": 16},
    },
    "colour": {"network": {"n_neurons": 16}},
    "grid": {"resolution": 16},
    "n_steps": 128,
}
SMALL = {"batch_size": 2048, "device": "cpu", "downscale": 16, "seed": 3}
NAMES = "spheres", "torus"


@pytest.fixture(autouse=True)
def few_views(monkeypatch):
    monkeypatch.setattr(scene_data, "N_TRAIN", 20)
    monkeypatch.setattr(scene_data, "N_TEST", 2)
    monkeypatch.setattr(scene_data.made_scene, "__defaults__", (400, 20, 2))


def run(tmp_path, scene="torus", n_steps=60, **options):
    return learn_field(
        scene, CONFIG, n_steps=n_steps, output=tmp_path / "out", **{**SMALL, **options}
    )


def stop_after(n_steps):
    """For `interrupted`, which is asked after each step and once before the second."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) >= n_steps


def test_a_scene_is_learned(tmp_path):
    """The quality floor: what is seen of two views that were never shown."""
    result = run(tmp_path, n_steps=400, batch_size=4096)
    assert result.psnr > 21
    assert result.ssim > 0.8
    assert result.finished
    report = json.loads(result.report.read_text(), parse_constant=pytest.fail)
    assert report["psnr"] == result.psnr == np.mean([each["psnr"] for each in report["views"]])
    assert report["scene"] == {
        "name": "torus", "training_views": 20, "test_views": 2, "width": 25, "height": 25,
        "background": "random",
    }  # fmt: skip
    assert 0.02 < report["model"]["occupied"] < 0.5  # empty space was found
    assert report["losses"][-1]["loss"] < 0.2 * report["losses"][0]["loss"]
    assert report["timings"]["rays_per_second"] > 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    pictures = ["step_000010.png", "step_000100.png", "step_000400.png"]
    sheets = ["contact_sheet.png", "curves.png", "reference.png", "report.json"]
    assert names == sorted([*pictures, *sheets, "snapshot.safetensors", "views.png"])
    assert sorted(result.files) == sorted((tmp_path / "out").iterdir())
    with Image.open(result.views) as sheet:
        assert sheet.size == (50, 75)
    field = load_field(result.snapshot, "cpu")
    camera = made_scene("torus", field.target, 25, 20, 2).test.cameras[0]
    with Image.open(result.pictures[-2]) as picture:
        seen = np.asarray(picture) / 255
    np.testing.assert_allclose(field.picture(camera), seen, atol=0.51 / 255)
    assert field.colour(np.zeros((2, 18))).shape == (2, 3)
    with pytest.raises(SnapshotError, match="load_field"):
        numbanet.load(result.snapshot, device="cpu")
    field.density.save(tmp_path / "density.safetensors")
    with pytest.raises(SnapshotError, match="not saved by learn-field"):
        load_field(tmp_path / "density.safetensors", "cpu")


def test_resuming_changes_nothing(tmp_path):
    whole = run(tmp_path / "whole", n_steps=60)
    first = run(tmp_path / "parts", n_steps=60, interrupted=stop_after(37))
    assert not first.finished
    assert first.step == 37
    last = learn_field(
        "torus",
        output=tmp_path / "parts" / "out",
        resume=first.snapshot,
        device="cpu",
        downscale=16,
    )
    assert last.step == 60
    assert last.psnr == whole.psnr
    assert last.pictures[-2].read_bytes() == whole.pictures[-2].read_bytes()


def test_resuming_before_the_first_step_changes_nothing(tmp_path):
    whole = run(tmp_path / "whole", n_steps=9)
    first = run(tmp_path / "parts", n_steps=np.int64(0), seed=np.int64(3))
    options = {"n_steps": 9, "device": "cpu", "downscale": 16}
    last = learn_field("torus", output=tmp_path / "on", resume=first.snapshot, **options)
    assert (last.loss, last.psnr) == (whole.loss, whole.psnr)
    assert last.rays_per_second > 0
    assert last.samples_per_second > 0


@pytest.mark.parametrize("background", ["white", "black"])
def test_fixed_backgrounds_and_exposure(tmp_path, background):
    result = run(tmp_path, background=background, exposure=True)
    report = json.loads(result.report.read_text())
    assert report["job"]["background"] == background
    with Image.open(result.pictures[-1]) as reference:
        corner = reference.getpixel((0, 0))
    assert corner == ((255, 255, 255) if background == "white" else (0, 0, 0))
    assert result.psnr > 10


def test_exposure_follows_the_cameras(tmp_path):
    """Pictures of half the brightness get a gain of half, if the others keep theirs."""
    target = target_for("cpu", None)
    scene = made_scene("torus", target, 25, 20, 1)
    dark = []
    for k, words in enumerate(scene.train.pixels):
        rgba = words.astype("<u4").view(np.uint8).reshape(-1, 4).copy()
        if k % 2:
            rgba[:, :3] //= 2
        dark.append(rgba.reshape(-1).view("<u4").astype(np.uint32))
    config = merged(config_for(FIELD_SIZES["cpu"]), CONFIG)
    learner = FieldLearner(
        RadianceField(config, 3, "cpu"), Views(scene.train.cameras, dark, target),
        batch_size=2048, background="black", exposure=True, n_steps=300,
    )  # fmt: skip
    for _ in range(300):
        learner.step()
    gains = learner.gains.mean(axis=1)
    assert gains[1::2].mean() < gains[::2].mean() - 0.1


def test_the_learner_finds_as_many_rays_as_fill_a_step():
    target = target_for("cpu", None)
    scene = made_scene("spheres", target, 25, 6, 1)
    config = merged(config_for(FIELD_SIZES["cpu"]), CONFIG)
    views = Views(scene.train.cameras, scene.train.pixels, target)
    learner = FieldLearner(RadianceField(config, 3, "cpu"), views, batch_size=2048)
    first = learner.n_rays
    losses = [float(learner.step()) for _ in range(6 * UPDATE_EVERY)]
    assert learner.steps_done == len(losses)
    assert losses[-1] < losses[0]
    assert learner.n_rays > first
    assert 0.5 * 2048 < learner.last_kept() < 1.5 * 2048
    picture = learner.picture(scene.test.cameras[0], 10, 8)
    assert picture.shape == (8, 10, 3)
    assert 0 <= picture.min() < picture.max() <= 1


def test_a_gpu_learns_the_same(cuda_device, monkeypatch):
    """Steps on a GPU: arrays of fixed sizes, of which a part is used."""
    from numbanet.cuda.target import CudaTarget

    target = CudaTarget(cuda_device, "float32")
    monkeypatch.setattr("numbanet.app.fields.field.target_for", lambda *_: target)
    monkeypatch.setattr("numbanet.create.target_for", lambda *_: target)
    host = target_for("cpu", None)
    scene = made_scene("torus", host, 8, 3, 1)
    config = merged(config_for(FIELD_SIZES["cpu"]), CONFIG)
    found = []
    for place in (target, host):
        monkeypatch.setattr("numbanet.app.fields.field.target_for", lambda *_, p=place: p)
        monkeypatch.setattr("numbanet.create.target_for", lambda *_, p=place: p)
        views = Views(scene.train.cameras, scene.train.pixels, place)
        field = RadianceField(config, 3)
        learner = FieldLearner(field, views, batch_size=1024, background="white", seed=1)
        learner.n_rays = 8
        losses = [float(learner.step()) for _ in range(3)]
        field.update_grid(learner.rng)
        picture = learner.picture(scene.test.cameras[0], 4, 4)
        found.append((losses, field.grid.occupied().mean(), picture))
    (mine, occupied, picture), (theirs, wanted, expected) = found
    np.testing.assert_allclose(mine, theirs, rtol=2e-3)
    assert occupied == pytest.approx(wanted, abs=0.02)
    np.testing.assert_allclose(picture, expected, atol=0.03)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scene": "teapot"}, "neither a folder"),
        ({"n_steps": -1}, "steps"),
        ({"batch_size": 0}, "batch size"),
        ({"seed": -1}, "seed"),
        ({"downscale": 0}, "downscale"),
        ({"background": "pink"}, "background"),
        ({"exposure": "no"}, "exposure"),
        ({"device": "gpu"}, "device"),
        ({"resume": "nowhere.safetensors"}, "cannot read"),
    ],
)
def test_what_cannot_be(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        run(tmp_path, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"density": {"encoding": {"n_levels": -1}}},
        {"grid": {"resolution": 6}},
        {"grid": {"levels": 2}},
        {"grid": {"n_levels": 0}},
        {"grid": 3},
        {"n_steps": 0},
        {"n_steps": "many"},
        {"colour": None},
    ],
)
def test_configs_that_cannot_be(tmp_path, config):
    with pytest.raises(UsageError, match="config"):
        learn_field("torus", config, n_steps=1, output=tmp_path / "out", **SMALL)


def test_snapshots_of_other_jobs_are_refused(tmp_path):
    result = run(tmp_path, n_steps=2)
    for options, words in (
        ({"scene": "spheres"}, "another scene"),
        ({"seed": 4}, "seed 3"),
        ({"batch_size": 4096}, "batch size 2048"),
        ({"background": "white"}, "background random"),
        ({"n_steps": 2}, "more --steps"),
    ):
        with pytest.raises(UsageError, match=words):
            run(tmp_path, **{"n_steps": 5, "resume": result.snapshot, **options})
    content = bytearray(result.snapshot.read_bytes())
    content[-3] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        run(tmp_path, n_steps=5, resume=damaged)
    (tmp_path / "text").write_text("no snapshot")
    with pytest.raises(UsageError, match="safetensors"):
        run(tmp_path, n_steps=5, resume=tmp_path / "text")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("grid", "resolution"), 512),
        (("density", "encoding", "log2_hashmap_size"), 30),
        (("colour", "network", "n_neurons"), 1 << 20),
        (("density", "encoding"), None),
        (("grid",), {}),
    ],
)
def test_a_snapshot_cannot_ask_for_more_than_it_holds(tmp_path, monkeypatch, where, value):
    """Nothing of the size that a header claims is made before the tensors were looked at."""
    result = run(tmp_path, n_steps=1)
    tensors = safetensors.numpy.load_file(result.snapshot)
    with open_snapshot(result.snapshot) as file:
        header = file.header
    config = header["job"]["config"]
    for name in where[:-1]:
        config = config[name]
    config[where[-1]] = value
    path = tmp_path / "claims.safetensors"
    write_snapshot(path, tensors, header)
    monkeypatch.setattr(FieldLearner, "__init__", lambda *_, **__: pytest.fail("it was made"))
    with pytest.raises(UsageError):
        learn_field("torus", n_steps=5, output=tmp_path / "no", resume=path, **SMALL)


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").mkdir()
    with pytest.raises(AppError, match=r"report\.json"):
        run(tmp_path, n_steps=1)


def test_a_folder_of_results_does_not_hide_the_scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = learn_field("torus", CONFIG, n_steps=1, output="torus", **SMALL)
    assert result.report.exists()


def test_the_command(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    words = ["torus", str(config), "--steps", "3", "--output", str(tmp_path / "out"), "--json"]
    words += ["--device", "cpu", "--downscale", "16", "--batch-size", "2048"]
    assert main(["learn-field", *words, "--set", "grid.resolution=16"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["step"] == 3
    assert {"psnr", "ssim", "rays_per_second"} <= printed.keys()
    assert main(["learn-field", "teapot"]) == 2
    assert "teapot" in capsys.readouterr().err


def test_views_are_measured_on_what_is_behind_them(tmp_path):
    assert field_training.psnr_of(np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.1)) == pytest.approx(20)
