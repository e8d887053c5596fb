"""Training of a network that maps a position to the value of the voxel there.

Each step takes random voxels. A voxel k of n along an axis lies at (k + 0.5) / n; inputs are in the
order of the array's axes.
"""

import math
from functools import cache, cached_property
from typing import Any

import numpy as np
from PIL import Image

import numbanet
from numbanet.app.curves import Curve
from numbanet.app.measured_learning import MeasuredLearning
from numbanet.app.pictures import psnr, squared_error
from numbanet.app.volume_file import Volume
from numbanet.cuda.launch.types import UInt
from numbanet.device import HALF
from numbanet.volumes.cameras import Camera
from numbanet.volumes.launch import Floats, Job, Rows

MOST_MEASURED = 1 << 20  # voxels of each measurement
MEASURED_SEED = 97
VALUES_AT_ONCE = 1 << 18  # evaluated on the host
TILE = 240  # pixels of a slice's longer side
LARGEST_ERROR = 0.1  # of an error map: white
N_LEVELS = 8
SHARE = 8  # by default the parameters take so much less than the file
N_ALONG = 96  # samples of a ray, for pictures


@cache
def voxel_job(n_dims: int) -> Job:
    @Job
    def voxel(
        i, uniform: Rows(n_dims), positions: Rows(n_dims), values: Rows(1), volume: Floats,
        a: UInt, b: UInt, c: UInt, d: UInt,
    ):  # fmt: skip
        sizes, index = (a, b, c, d), np.uint64(0)
        for along in range(n_dims):
            size = sizes[4 - n_dims + along]
            k = min(np.uint32(uniform[i, along] * np.float32(size)), size - 1)
            positions[i, along] = (np.float32(k) + HALF) / np.float32(size)
            index = index * np.uint64(size) + np.uint64(k)
        values[i, 0] = volume[index]

    return voxel


class VolumeLearning(MeasuredLearning):
    """Training on a volume."""

    command = metadata_key = "learn-volume"
    samples_name = "voxels"
    curve = Curve("psnr", "PSNR (dB)")
    data: Volume

    @classmethod
    def n_inputs(cls, data: Volume) -> int:
        return data.n_dims

    @classmethod
    def config_for(cls, data: Volume) -> dict[str, Any]:
        """Config of a hash grid whose tables take about a SHARE of the file's bytes."""
        entries = data.n_bytes / SHARE / (N_LEVELS * 2 * 4)
        finest = max(data.values.shape[-3:])
        coarsest = max(2, finest // 16)
        scale = (finest / 2 / coarsest) ** (1 / (N_LEVELS - 1)) if finest > 4 else 1.0
        return {
            "loss": {"otype": "L2"},
            "optimizer": {"otype": "Adam", "learning_rate": 5e-3, "beta2": 0.99, "epsilon": 1e-15},
            "encoding": {
                "otype": "HashGrid",
                "n_levels": N_LEVELS,
                "n_features_per_level": 2,
                "log2_hashmap_size": min(max(round(math.log2(max(entries, 1))), 8), 22),
                "base_resolution": coarsest,
                "per_level_scale": max(scale, 1.0),
            },
            "network": {
                "otype": "FullyFusedMLP",
                "activation": "ReLU",
                "output_activation": "None",
                "n_neurons": 64,
                "n_hidden_layers": 2,
            },
        }

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of four axes; missing ones come first and are 1."""
        shape = self.data.values.shape
        return (1,) * (4 - len(shape)) + shape

    @cached_property
    def volume(self) -> Any:
        return self.target.from_host(self.data.values.reshape(-1))

    @cached_property
    def measured(self) -> tuple[Any, np.ndarray]:
        """Voxels to measure: all of a small volume, else a sample."""
        values = self.data.values
        if values.size <= MOST_MEASURED:
            index = np.arange(values.size)
        else:
            index = np.random.default_rng(MEASURED_SEED).integers(0, values.size, MOST_MEASURED)
        places = np.stack(np.unravel_index(index, values.shape), axis=1)
        positions = ((places + 0.5) / values.shape).astype(np.float32)
        return self.target.from_host(positions), values.reshape(-1)[index]

    def prepare(self) -> None:
        self.model(np.full((1, self.data.n_dims), 0.5, np.float32))

    def training_step(self) -> numbanet.Loss:
        n, n_dims, target = self.job.batch_size, self.data.n_dims, self.target
        uniform = self.rng.device_uniform(n_dims * n, target).reshape(n, n_dims)
        positions, values = target.empty(n, n_dims), target.empty(n, 1)
        voxel_job(n_dims)(target, n, uniform, positions, values, self.volume, *self.sizes)
        return self.model.trainer.training_step(positions, values)

    def learned(self, positions: np.ndarray) -> np.ndarray:
        """Values [n] in [0, 1] at positions [n, n_dims] of the host."""
        parts = [
            self.target.to_host(self.model(positions[first : first + VALUES_AT_ONCE]))[:, 0]
            for first in range(0, len(positions), VALUES_AT_ONCE)
        ]
        return np.clip(np.concatenate(parts), 0, 1)

    def measure(self) -> dict[str, float]:
        positions, values = self.measured
        learned = np.clip(self.target.to_host(self.model(positions))[:, 0], 0, 1)
        return {"psnr": psnr(squared_error(learned, values), values.size), "ratio": self.ratio}

    @property
    def ratio(self) -> float:
        """Bytes of the array in the file over those of the parameters."""
        network = self.model.network
        n_bytes = 4 if network.precision == "float32" else 2
        return self.data.n_bytes / (network.n_params * n_bytes)

    def describe(self, metrics: dict[str, float]) -> str:
        return f"{metrics['psnr']:.1f} dB"

    def planes(self) -> list[tuple[tuple[int, ...], np.ndarray]]:
        """Three slices: index arrays of their voxels, [height, width, n_dims], and true values."""
        shape = self.data.values.shape
        middle = [size // 2 for size in shape]
        if len(shape) == 3:
            fixed = [(axis, middle[axis]) for axis in range(3)]
            held = [{axis: k} for axis, k in fixed]
        else:
            held = [{0: t, 1: middle[1]} for t in (0, middle[0], shape[0] - 1)]
        found = []
        for each in held:
            axes = [np.array([each[d]]) if d in each else np.arange(n) for d, n in enumerate(shape)]
            index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            size = [n for d, n in enumerate(shape) if d not in each]
            index = index.reshape(*size, len(shape))
            found.append((index, self.data.values[tuple(np.moveaxis(index, -1, 0))]))
        return found

    def draw(self) -> np.ndarray:
        """Slices of the learned volume, and their errors below."""
        columns = []
        for index, true in self.planes():
            positions = ((index + 0.5) / self.data.values.shape).astype(np.float32)
            learned = self.learned(positions.reshape(-1, self.data.n_dims)).reshape(true.shape)
            columns.append((grey(learned), heat(np.abs(learned - true) / LARGEST_ERROR)))
        return sheet(columns)

    def draw_reference(self) -> np.ndarray:
        """Slices of the given volume, and the colour scale of errors from 0 to LARGEST_ERROR."""
        ramp = np.linspace(0, 1, 64)[None].repeat(8, axis=0)
        return sheet([(grey(true), heat(ramp)) for _, true in self.planes()])

    def camera(self, width: int, height: int) -> Camera:
        """Initial camera of a viewer."""
        return Camera.looking((0.5, 0.5, 0.5), (1.6, -0.9, 1.3), width, height, angle=0.75)

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Maximum along each ray, [height, width, 3]; of a time series, at its middle."""
        rays = camera.resized(width, height).rays("cpu")
        origins, directions = (np.asarray(each) for each in rays)
        safe = np.where(np.abs(directions) < 1e-6, np.float32(1e-6), directions)
        low, high = -origins / safe, (1 - origins) / safe
        near = np.maximum(np.minimum(low, high).max(axis=1), 0)
        far = np.maximum(low, high).min(axis=1)
        meets, brightness = np.flatnonzero(near < far), np.zeros(len(origins), np.float32)
        for s in (np.arange(N_ALONG) + 0.5) / N_ALONG if len(meets) else ():
            depths = near[meets] + np.float32(s) * (far - near)[meets]
            points = origins[meets] + depths[:, None] * directions[meets]
            points = np.clip(points[:, ::-1], 0, 1)  # x is the last axis of the array
            if self.data.n_dims == 4:
                points = np.concatenate([np.full((len(points), 1), 0.5), points], axis=1)
            found = self.learned(np.ascontiguousarray(points, np.float32))
            brightness[meets] = np.maximum(brightness[meets], found)
        return grey(brightness).reshape(height, width, 3)

    def data_report(self) -> dict[str, Any]:
        data = self.data
        return {
            "name": data.name,
            "shape": list(data.values.shape),
            "low": data.low,
            "high": data.high,
            "n_bytes": data.n_bytes,
            "n_measured": len(self.measured[1]),
        }


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.float32)[..., None], 3, axis=-1)


def heat(values: np.ndarray) -> np.ndarray:
    """Colours from black through red and yellow to white for values from 0 to 1."""
    return np.clip(3 * np.asarray(values, np.float32)[..., None] - np.arange(3), 0, 1)


def sheet(columns: list[tuple[np.ndarray, ...]]) -> np.ndarray:
    """Pictures in columns, each scaled to a tile, [height, width, 3]."""
    gap = np.ones((TILE, 8, 3), np.float32)
    rows = []
    for row in zip(*columns, strict=True):
        tiles = [part for each in row for part in (tile(each), gap)]
        rows += [np.concatenate(tiles[:-1], axis=1)]
    between = np.ones((8, rows[0].shape[1], 3), np.float32)
    return np.concatenate([rows[0], between, rows[1]], axis=0)


def tile(picture: np.ndarray) -> np.ndarray:
    """Picture centred in a white square, its pixels as large as fit."""
    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = Image.fromarray((picture * 255 + 0.5).astype(np.uint8))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    square = Image.new("RGB", (TILE, TILE), "white")
    square.paste(image.resize(size, way), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return np.asarray(square, np.float32) / 255
