"""Scenes in files: transforms.json with pictures, as instant-ngp and nerfstudio read them.

Which frames are learned, splits.py says, and where the scene is, placement.py.

Nothing in these files is trusted: sizes are bounded, numbers are to be finite, and pictures lie in
the file's folder.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from numbanet.app.errors import UsageError
from numbanet.app.fields.numbers_in_files import number, numbers_of
from numbanet.app.fields.placement import Placement, check_sight, placement_of
from numbanet.app.fields.scene_data import SceneData, Shots
from numbanet.app.fields.splits import divided, files_of
from numbanet.app.image_file import MOST_PIXELS, open_image
from numbanet.regular_file import read_regular
from numbanet.shown import shown
from numbanet.volumes import Camera

MOST_BYTES = 1 << 26
MOST_FRAMES = 1 << 14
MOST_ALL_PIXELS = 1 << 30
ENDINGS = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG")
PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
LARGEST = 1e6  # of numbers in poses
SHORTEST = 1e-3  # focal length, in pixels


def read_scene(path: str | Path, downscale: int = 1, max_pixels: int = MOST_PIXELS) -> SceneData:
    """Read a scene from a folder, or from a transforms.json.

    Args:
        downscale: pictures are made so many times smaller along each axis.
        max_pixels: larger pictures are refused.

    Raises:
        UsageError: a file cannot be read or used; the message says which and why.
    """
    path = Path(path)
    files = files_of(path)
    contents = [read_json(file) for file in files]
    frames = [frames_of(content, file) for content, file in zip(contents, files, strict=True)]
    poses = [pose_of(frame, files[0]) for part in frames for frame in part]
    placement = placement_of(contents[0], poses, files[0])
    if len(files) == 1:
        frames = divided(contents[0], frames[0], files[0])
        contents, files = 2 * contents, 2 * files
    if not all(frames):
        raise UsageError(f"'{files[0]}': needs at least two pictures, one of them for the test")
    reader = Reader(downscale, max_pixels, placement)
    train, test = (
        [reader.shot(content, frame, file) for frame in part]
        for content, part, file in zip(contents, frames, files, strict=True)
    )
    check_sight([camera for camera, _ in train], files[0])
    name = (path if path.is_dir() else path.parent).resolve().name
    return SceneData(
        name, Shots(*map(list, zip(*train, strict=True))),
        Shots(*map(list, zip(*test, strict=True))), placement.n_levels, reader.has_opacity,
    )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file."""
    try:
        content = json.loads(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' is no JSON: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise UsageError(f"'{path}': expected an object with frames, got {shown(content)}")
    return content


def frames_of(content: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Frames of a file; raises UsageError for unsupported kinds of cameras."""
    frames = content.get("frames")
    if not isinstance(frames, list) or not 1 <= len(frames) <= MOST_FRAMES:
        raise UsageError(f"'{path}': frames: expected a list of 1 to {MOST_FRAMES}")
    for frame in frames:
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UsageError(f"'{path}': a frame is no object with a file_path: {shown(frame)}")
        for where in (content, frame):
            model = where.get("camera_model") or "OPENCV"
            if model not in PINHOLES or where.get("is_fisheye"):
                raise UsageError(
                    f"'{path}': camera_model {shown(model)} is not supported; there are "
                    f"{', '.join(PINHOLES)}"
                )
            for name in ("k3", "k4", "k5", "k6"):
                if where.get(name):
                    raise UsageError(f"'{path}': {name}: only k1, k2, p1, p2 are supported")
    return sorted(frames, key=lambda frame: frame["file_path"])


def pose_of(frame: Mapping[str, Any], path: Path) -> np.ndarray:
    """Pose of a frame from its transform_matrix, [3, 4]."""
    pose = numbers_of(frame.get("transform_matrix"))
    good = pose.shape in ((3, 4), (4, 4)) and bool((np.abs(pose) <= LARGEST).all())
    if good:
        lengths = np.linalg.norm(pose[:3, :3], axis=0)
        good = abs(np.linalg.det(pose[:3, :3])) > 1e-6 * float(lengths.prod()) > 0
    if not good:
        raise UsageError(
            f"'{path}': transform_matrix of {shown(frame['file_path'])}: expected numbers "
            f"[4, 4] to {LARGEST:g} whose axes are independent"
        )
    return pose[:3]


class Reader:
    """Reader of pictures and cameras, which limits the pixels of all."""

    def __init__(self, downscale: int, max_pixels: int, placement: Placement):
        self.downscale, self.max_pixels, self.placement = downscale, max_pixels, placement
        self.has_opacity, self.n_pixels = False, 0

    def shot(
        self, content: Mapping[str, Any], frame: Mapping[str, Any], path: Path
    ) -> tuple[Camera, np.ndarray]:
        """Camera and picture of a frame."""
        file = picture_of(path.parent, frame["file_path"], path)
        with open_image(file, self.max_pixels, "make it smaller") as image:
            self.n_pixels += image.width * image.height
            if self.n_pixels > MOST_ALL_PIXELS * self.downscale**2:
                raise UsageError(
                    f"'{path}': the pictures have more than {MOST_ALL_PIXELS} pixels; ask for a "
                    "larger --downscale"
                )
            if image.mode in ("F", "I", "LAB") or image.mode.startswith("I;"):
                raise UsageError(
                    f"'{file}' is {image.mode}; save it as RGB or RGBA, 8 bits a value"
                )
            self.has_opacity |= "A" in image.mode or "transparency" in image.info
            whole = image.width, image.height
            small = image.convert("RGBA")
        if self.downscale > 1:
            size = tuple(max(1, n // self.downscale) for n in whole)
            small = small.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
        camera = camera_of({**content, **frame}, pose_of(frame, path), whole, small.size, path)
        pose = camera.pose.copy()
        pose[:, :3] /= np.linalg.norm(pose[:, :3], axis=0)
        pose[:, 3] = pose[:, 3] * self.placement.scale + self.placement.offset
        camera = Camera(
            pose, camera.width, camera.height, camera.focal, camera.centre, camera.distortion
        )
        pixels = np.asarray(small, np.uint8).reshape(-1).view("<u4").astype(np.uint32)
        return camera, pixels


def picture_of(folder: Path, name: str, path: Path) -> Path:
    """Path of the picture; raises UsageError unless it lies in the folder."""
    inside = folder.resolve()
    for ending in ENDINGS:
        try:
            file = (folder / f"{name}{ending}").resolve()
            is_there = file.is_file()
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"'{path}': file_path {shown(name)}: {error!s:.100}") from error
        if not file.is_relative_to(inside):
            raise UsageError(
                f"'{path}': file_path {shown(name)} leads out of '{folder}', which is not followed"
            )
        if is_there:
            return file
    raise UsageError(f"'{path}': there is no picture {shown(name)} in '{folder}'")


def camera_of(
    values: Mapping[str, Any], pose: np.ndarray, whole: tuple[int, int], small: tuple[int, int],
    path: Path,
) -> Camera:  # fmt: skip
    """Camera of a picture of `whole` pixels that was reduced to `small`, in the file's units."""
    width, height = number(values, "w", path, whole[0]), number(values, "h", path, whole[1])
    if not (width and height and width > 0 and height > 0):
        raise UsageError(
            f"'{path}': w, h: {width!r}, {height!r} are not allowed; use numbers above 0"
        )
    if abs(width * whole[1] - height * whole[0]) > max(width + height, sum(whole)):
        raise UsageError(
            f"'{path}': w, h: {width:g}, {height:g} have not the shape of a picture of "
            f"{whole[0]} x {whole[1]} pixels; it may have been turned"
        )
    focal_x = focal(values, "x", width, path)
    focal_y = focal(values, "y", height, path)
    focal_y = focal_x if focal_y is None else focal_y
    focal_x = focal_y if focal_x is None else focal_x
    if focal_x is None or focal_y is None:
        raise UsageError(f"'{path}': there is neither fl_x nor camera_angle_x, nor those of y")
    x, y = small[0] / width, small[1] / height
    centre = number(values, "cx", path, width / 2), number(values, "cy", path, height / 2)
    distortion = tuple(number(values, name, path, 0.0) for name in ("k1", "k2", "p1", "p2"))
    try:
        return Camera(
            pose, *small, (focal_x * x, focal_y * y), (centre[0] * x, centre[1] * y), distortion
        )
    except ValueError as error:
        raise UsageError(f"'{path}': {error}") from error


def focal(values: Mapping[str, Any], axis: str, size: float, path: Path) -> float | None:
    """Focal length in pixels, given or from the angle of the field of view."""
    length = number(values, f"fl_{axis}", path, None)
    if length is not None:
        if not length >= SHORTEST:
            raise UsageError(
                f"'{path}': focal length fl_{axis}: {length!r} is not allowed; use {SHORTEST} or "
                "more"
            )
        return length
    angle = number(values, f"camera_angle_{axis}", path, None)
    if angle is None:
        return None
    if not 0 < angle < math.pi:
        raise UsageError(
            f"'{path}': camera_angle_{axis}: {angle!r} is not allowed; use 0 to pi, both excluded"
        )
    return size / 2 / math.tan(angle / 2)
