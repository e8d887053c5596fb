"""transforms.json of scenes: JSON with changed values, or damaged as text, beside two pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.campaign import Format
from fuzz.mutations import choice, damaged, mutated
from numbanet.app.errors import UsageError
from numbanet.app.fields.transforms import read_scene

POSE = [[1, 0, 0, 0], [0, 0, -1, -2], [0, 1, 0, 0], [0, 0, 0, 1]]
KINDS = (
    {"fl_x": 5.0, "fl_y": 5.0, "cx": 2.0, "cy": 1.5, "w": 4, "h": 3, "aabb_scale": 4,
     "scale": 0.5, "offset": [0.5, 0.5, 0.5], "k1": 0.1, "k2": 0.0, "p1": 0.0, "p2": 0.0},
    {"camera_angle_x": 0.7},
    {"camera_model": "OPENCV", "fl_x": 5.0, "w": 8, "h": 6, "test_filenames": ["b.png"]},
)  # fmt: skip


def generate(rng) -> bytes:
    frames = [{"file_path": name, "transform_matrix": POSE} for name in ("a.png", "./b", "b.png")]
    content = {**choice(rng, KINDS), "frames": frames}
    if rng.random() < 0.7:
        content = mutated(rng, content)
    try:
        text = json.dumps(content).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):  # too deep, or too many digits
        text = b"{"
    return damaged(rng, text) if rng.random() < 0.4 else text


def read(content: bytes, folder: Path) -> None:
    """Read the scene; what is read are cameras in front of pictures of theirs."""
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((3, 4, 4), 200, np.uint8)).save(folder / name)
    (folder / "transforms.json").write_bytes(content)
    scene = read_scene(folder)
    for shots in (scene.train, scene.test):
        for camera, pixels in zip(shots.cameras, shots.pixels, strict=True):
            assert len(pixels) == camera.width * camera.height
            assert np.isfinite(camera.numbers()).all()
    assert 1 <= scene.n_levels <= 8


FORMAT = Format("transforms", generate, read, (UsageError,))
