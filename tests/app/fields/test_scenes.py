"""The eight scenes, as they are drawn and as a user's own files are read."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.app.errors import UsageError
from numbanet.app.fields.drawing import draw
from numbanet.app.fields.quality import ssim
from numbanet.app.fields.scene_data import cameras_around, made_scene, moved
from numbanet.app.fields.scenes import SCENES
from numbanet.app.fields.transforms import read_scene
from numbanet.app.fields.views import RandomRays, Views
from numbanet.random import Pcg32
from numbanet.targets import target_for
from numbanet.volumes import Camera

CPU = target_for("cpu", None)
SIZE = 24


def rgba_of(words, size=SIZE):
    return words.astype("<u4").view(np.uint8).reshape(size, size, 4)


@pytest.mark.parametrize("name", SCENES)
def test_scenes_are_in_the_middle_and_look_different_from_elsewhere(name):
    scene = made_scene(name, CPU, SIZE, 3, 2)
    assert (len(scene.train), len(scene.test), scene.n_levels) == (3, 2, 1)
    pictures = [rgba_of(words) for words in (*scene.train.pixels, *scene.test.pixels)]
    for picture in pictures:
        opacity = picture[..., 3] / 255
        assert 0.02 < opacity.mean() < 0.8
        assert opacity[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
        assert picture[picture[..., 3] > 200][:, :3].std() > 5
    assert not np.array_equal(pictures[0], pictures[1])
    for camera in (*scene.train.cameras, *scene.test.cameras):
        assert np.linalg.norm(camera.pose[:, 3] - 0.5) == pytest.approx(1.4)


def test_there_are_eight_scenes_and_no_others():
    assert len(SCENES) == 8
    with pytest.raises(UsageError, match="torus"):
        made_scene("teapot", CPU, SIZE)


def write_files(folder, scene, **more):
    """The scene as a transforms.json of instant-ngp, with every picture in a folder."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for k, (camera, words) in enumerate(zip(scene.train.cameras, scene.train.pixels, strict=True)):
        Image.fromarray(rgba_of(words, camera.width)).save(folder / "images" / f"{k:02}.png")
        matrix = np.vstack([camera.pose, [0, 0, 0, 1]]).tolist()
        frames.append({"file_path": f"images/{k:02}.png", "transform_matrix": matrix})
    camera = scene.train.cameras[0]
    content = {"fl_x": camera.focal[0], "w": camera.width, "h": camera.height, "frames": frames}
    content |= {"scale": 1.0, "offset": [0.0, 0.0, 0.0], "aabb_scale": 1} | more
    path = folder / "transforms.json"
    path.write_text(
        json.dumps({name: value for name, value in content.items() if value is not None})
    )
    return path


@pytest.fixture(scope="module")
def torus():
    return made_scene("torus", CPU, SIZE, 9, 1)


def test_files_hold_the_same_scene(torus, tmp_path):
    path = write_files(tmp_path / "scene", torus)
    read = read_scene(path.parent)
    assert read.name == "scene"
    assert (len(read.train), len(read.test), read.n_levels, read.has_opacity) == (7, 2, 1, True)
    for mine, theirs, k in ((read.train, torus.train, 1), (read.test, torus.train, 0)):
        np.testing.assert_allclose(mine.cameras[0].pose, theirs.cameras[k].pose, atol=1e-12)
        np.testing.assert_allclose(mine.cameras[0].focal, theirs.cameras[k].focal)
        np.testing.assert_array_equal(rgba_of(mine.pixels[0]), rgba_of(theirs.pixels[k]))
    half = read_scene(path, downscale=2)
    assert half.train.cameras[0].width == SIZE // 2
    assert half.train.cameras[0].focal[0] == pytest.approx(torus.train.cameras[0].focal[0] / 2)
    assert read.digest == read_scene(path).digest != half.digest


def test_instant_ngps_cube_and_its_scales(torus, tmp_path):
    options = {"scale": 2.0, "offset": [0.5, 0.25, 0.5], "aabb_scale": 4}
    read = read_scene(write_files(tmp_path / "scene", torus, **options))
    assert read.n_levels == 3
    at = torus.train.cameras[1].pose[:, 3]
    wanted = (2 * at + [0.5, 0.25, 0.5] - 0.5) / 4 + 0.5
    np.testing.assert_allclose(read.train.cameras[0].pose[:, 3], wanted)


def test_without_a_scale_the_cameras_give_it(torus, tmp_path):
    none = {"scale": None, "offset": None, "aabb_scale": None, "camera_model": "OPENCV"}
    read = read_scene(write_files(tmp_path / "scene", torus, **none))
    places = np.array([camera.pose[:, 3] for camera in (*read.train.cameras, *read.test.cameras)])
    np.testing.assert_allclose(np.linalg.norm(places - 0.5, axis=1), 1 / 8, rtol=1e-3)
    assert read.n_levels == 4


def test_blenders_files_have_an_angle_and_two_parts(torus, tmp_path):
    options = {"fl_x": None, "camera_angle_x": 0.7, "w": None, "h": None}
    path = write_files(tmp_path / "scene", torus, **options)
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png")
    parts = {"train": content["frames"][:5], "val": content["frames"][5:6]}
    for part, frames in parts.items():
        file = path.parent / f"transforms_{part}.json"
        file.write_text(json.dumps(content | {"frames": frames}))
    read = read_scene(path.parent)
    assert (len(read.train), len(read.test)) == (5, 1)
    file = path.parent / "transforms_test.json"
    file.write_text(json.dumps(content | {"frames": content["frames"][6:]}))
    read = read_scene(path.parent)
    assert (len(read.train), len(read.test)) == (5, 3)
    assert read.train.cameras[0].focal[0] == pytest.approx(torus.train.cameras[0].focal[0])


def names(*numbers):
    return [f"images/{k:02}.png" for k in numbers]


@pytest.mark.parametrize(
    ("lists", "n_train", "n_test"),
    [
        ({"val_filenames": names(3)}, 8, 1),
        ({"test_filenames": names(4, 5), "val_filenames": names(3)}, 6, 2),
        ({"train_filenames": names(0, 1, 2), "val_filenames": names(3)}, 3, 1),
        ({"train_filenames": names(0, 1, 2)}, 3, 6),
        ({"train_filenames": names(*range(9)), "test_filenames": ["./images/00.png"]}, 8, 1),
        ({"train_filenames": names(*range(9)), "test_filenames": [], "val_filenames": None}, 7, 2),
    ],
)
def test_lists_say_what_is_learned(torus, tmp_path, lists, n_train, n_test):
    read = read_scene(write_files(tmp_path / "scene", torus, **lists))
    assert (len(read.train), len(read.test)) == (n_train, n_test)
    held_out = read.test.pixels[0]
    assert not any(np.array_equal(held_out, each) for each in read.train.pixels)
    if list(lists) == ["val_filenames"]:
        np.testing.assert_array_equal(rgba_of(held_out), rgba_of(torus.train.pixels[3]))


def test_a_frame_that_comes_twice_is_not_learned_and_measured(torus, tmp_path):
    path = write_files(tmp_path / "scene", torus)
    content = json.loads(path.read_text())
    content["frames"].insert(0, content["frames"][0])
    path.write_text(json.dumps(content))
    read = read_scene(path)
    assert (len(read.train), len(read.test)) == (7, 3)


def changed(content, where, value):
    *path, last = where
    for step in path:
        content = content[step]
    content[last] = value


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("frames",), [], "frames"),
        (("frames",), {"a": 1}, "frames"),
        (("frames", 0), 3, "file_path"),
        (("frames", 0, "file_path"), "../../etc/passwd", "leads out"),
        (("frames", 0, "file_path"), "/etc/passwd", "leads out"),
        (("frames", 0, "file_path"), "images/99.png", "no picture"),
        (("frames", 0, "file_path"), "images/\0", "file_path"),
        (("frames", 0, "file_path"), "x" * 5000, "file_path|no picture"),
        (("frames", 0, "transform_matrix"), [[1, 2], [3]], "transform_matrix"),
        (("frames", 0, "transform_matrix"), np.zeros((4, 4)).tolist(), "transform_matrix"),
        (("frames", 0, "transform_matrix"), np.full((4, 4), 1e30).tolist(), "transform_matrix"),
        (("frames", 0, "transform_matrix"), "abc", "transform_matrix"),
        (("frames", 0, "camera_model"), "OPENCV_FISHEYE", "OPENCV_FISHEYE"),
        (("is_fisheye",), True, "camera_model"),
        (("k3",), 0.1, "k3"),
        (("fl_x",), -3, "focal"),
        (("fl_y",), 0, "focal"),
        (("fl_x",), "wide", "fl_x"),
        (("fl_x",), None, "fl_x"),
        (("cx",), float("nan"), "cx"),
        (("w",), 0, "w, h"),
        (("w",), 4 * SIZE, "turned"),
        (("fl_x",), 1e-300, "focal"),
        (("scale",), 1e9, "no camera sees"),
        (("offset",), [7, 7, 7], "no camera sees"),
        (("offset",), ["0", "0", "0"], "offset"),
        (("frames", 0, "transform_matrix"), np.eye(4).astype(str).tolist(), "transform_matrix"),
        (("test_filenames",), ["images/99.png"], "test_filenames: 'images/99.png'"),
        (("val_filenames",), "images/01.png", "val_filenames: expected a list"),
        (("train_filenames",), [["images/01.png"]], "train_filenames: expected a list"),
        (("test_filenames",), names(*range(9)), "at least two pictures"),
        (("aabb_scale",), 3, "aabb_scale"),
        (("aabb_scale",), 1024, "aabb_scale"),
        (("scale",), 0, "scale"),
        (("offset",), [1, 2], "offset"),
        (("offset",), [1, 2, 1e300], "offset"),
    ],
)
def test_what_files_must_not_say(torus, tmp_path, where, value, words):
    path = write_files(tmp_path / "scene", torus)
    content = json.loads(path.read_text())
    changed(content, where, value)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words) as caught:
        read_scene(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "LAB"])
def test_pictures_of_other_values_than_bytes_are_refused(torus, tmp_path, mode):
    path = write_files(tmp_path / "scene", torus)
    Image.new(mode, (SIZE, SIZE)).save(path.parent / "images" / "03.png", "TIFF")
    with pytest.raises(UsageError, match="8 bits a value"):
        read_scene(path)


def test_what_is_null_is_not_there(torus, tmp_path):
    path = write_files(tmp_path / "scene", torus, scale=None, offset=None, aabb_scale=None)
    wanted = read_scene(path)
    content = json.loads(path.read_text())
    none = dict.fromkeys(("scale", "offset", "aabb_scale", "cx", "camera_model"))
    path.write_text(json.dumps(content | none))
    assert read_scene(path).digest == wanted.digest


def test_axes_may_have_any_length(torus, tmp_path):
    path = write_files(tmp_path / "scene", torus)
    wanted = read_scene(path).train.cameras[0]
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = (
            np.array(frame["transform_matrix"]) * [1e-3, 1e-3, 1e-3, 1]
        ).tolist()
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(read_scene(path).train.cameras[0].pose, wanted.pose, atol=1e-9)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"frames": ' + "[" * 100000])
def test_files_that_are_none(tmp_path, text):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(UsageError, match=r"transforms\.json"):
        read_scene(tmp_path)


def test_links_out_of_the_folder_are_not_followed(torus, tmp_path):
    path = write_files(tmp_path / "scene", torus)
    picture = path.parent / "images" / "00.png"
    picture.rename(tmp_path / "00.png")
    picture.symlink_to(tmp_path / "00.png")
    with pytest.raises(UsageError, match="leads out"):
        read_scene(path)


def test_random_rays_show_the_colours_of_their_pixels(torus):
    views = Views(torus.train.cameras, torus.train.pixels, CPU)
    rays = views.random_rays(Pcg32(1), RandomRays.room(CPU, 200))
    assert set(rays.cameras) == set(range(9))
    for k in range(200):
        camera = torus.train.cameras[rays.cameras[k]]
        seen = rays.directions[k] @ camera.pose[:, :3]
        x = seen[0] / -seen[2] * camera.focal[0] + SIZE / 2
        y = -seen[1] / -seen[2] * camera.focal[1] + SIZE / 2
        assert x % 1 == pytest.approx(0.5, abs=1e-3)
        picture = rgba_of(torus.train.pixels[rays.cameras[k]])
        np.testing.assert_allclose(rays.colours[k] * 255, picture[int(y), int(x)], atol=1e-3)
        np.testing.assert_allclose(rays.origins[k], camera.pose[:, 3], atol=1e-6)
    assert 0 <= rays.offsets.min() < rays.offsets.max() < 1


def test_pictures_on_a_gpu_are_those_of_the_cpu(cuda_device):
    from numbanet.cuda.target import CudaTarget

    camera = Camera.looking((0, 0, 0), (1.9, -1.7, 1.1), 12, 12)
    mine = draw(SCENES["glossy"], camera, CudaTarget(cuda_device, "float16")).numpy()
    theirs = draw(SCENES["glossy"], camera, CPU)
    difference = np.abs(rgba_of(mine, 12).astype(int) - rgba_of(theirs, 12))
    assert np.mean(difference > 2) < 0.02  # at edges roundings decide


def test_cameras_move_with_their_scene():
    camera = cameras_around(5, 8, 0.0)[2]
    there = moved(camera, 0.5, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(there.pose[:, 3], camera.pose[:, 3] / 2 + 0.5)
    np.testing.assert_array_equal(there.pose[:, :3], camera.pose[:, :3])


def test_ssim_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    picture = rng.random((20, 30, 3))
    assert ssim(picture, picture) == pytest.approx(1)
    noisy = np.clip(picture + 0.3 * rng.normal(size=picture.shape), 0, 1)
    assert 0.2 < ssim(picture, noisy) < 0.8
    flat = np.full((12, 12, 3), 0.5)
    light = (2 * 0.5 * 0.6 + 1e-4) / (0.25 + 0.36 + 1e-4)
    assert ssim(flat, flat + 0.1) == pytest.approx(light)
    assert ssim(picture[:5, :5], picture[:5, :5]) == pytest.approx(1)
