"""Training of a network on signed distances, and its metrics.

A step takes points near the surface, around it and anywhere in the unit cube. With an eikonal term
the length of the gradient is trained to be 1 (Gropp et al. 2020): that takes second derivatives.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.curves import Curve
from numbanet.app.errors import AppError
from numbanet.app.measured_learning import MeasuredLearning
from numbanet.app.surfaces.distances import N_UNIFORM, Distances
from numbanet.app.surfaces.mesh_file import write_mesh
from numbanet.app.surfaces.tracing import pictures
from numbanet.cuda.launch.types import Float
from numbanet.device import ONE
from numbanet.random import Pcg32
from numbanet.volumes.cameras import Camera
from numbanet.volumes.launch import Job, Rows

MESH = "mesh.ply"
N_MEASURED = 1 << 16  # points of each measurement
MEASURED_SEED = 97
POINTS_AT_ONCE = 1 << 18  # evaluated on the host
PICTURE = 320  # pixels, of each of the two halves
LEAST_LENGTH = np.float32(1e-6)


@Job
def eikonal_gradients(i, slopes: Rows(3), scale: Float, gradients: Rows(3)):
    """Gradients of scale / 2 (|slope| - 1)^2."""
    slope = slopes[i]
    square = slope[0] * slope[0] + slope[1] * slope[1] + slope[2] * slope[2]
    length = square ** np.float32(0.5)
    factor = scale * (length - ONE) / max(length, LEAST_LENGTH)
    for d in range(3):
        gradients[i, d] = factor * slope[d]


DEFAULT_CONFIG = {
    "loss": {"otype": "Mape"},
    "optimizer": {"otype": "Adam", "learning_rate": 5e-3, "beta2": 0.99, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 10,
        "n_features_per_level": 2,
        "log2_hashmap_size": 16,
        "base_resolution": 8,
        "per_level_scale": 1.5,
    },
    "network": {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": 64,
        "n_hidden_layers": 2,
    },
}


class SurfaceLearning(MeasuredLearning):
    """Training on a surface."""

    command = metadata_key = "learn-surface"
    samples_name = "points"
    curve = Curve("iou", "intersection over union")
    mesh_resolution = 128

    @classmethod
    def config_for(cls, data: Any) -> dict[str, Any]:
        return DEFAULT_CONFIG

    @cached_property
    def truth(self) -> Distances:
        return Distances(self.data, self.target)

    @cached_property
    def measured(self) -> tuple[Any, Any, np.ndarray]:
        """Points of the surface, points anywhere, and whether the latter lie inside."""
        rng, n = Pcg32(MEASURED_SEED), N_MEASURED
        uniform = rng.device_uniform(N_UNIFORM * n, self.target).reshape(n, N_UNIFORM)
        on_surface = self.target.to_host(self.truth.samples(uniform, 0.0, 0.0))[: 7 * n // 8]
        anywhere = self.target.from_host(rng.uniform(3 * n).reshape(n, 3))
        inside = self.target.to_host(self.truth(anywhere))[:, 0] < 0
        return on_surface, anywhere, inside

    @cached_property
    def ones(self) -> Any:
        """Ones [batch_size, 1]: the gradient of the outputs that gives their slopes."""
        return self.target.from_host(np.ones((self.job.batch_size, 1), np.float32))

    def prepare(self) -> None:
        self.model(np.full((1, 3), 0.5, np.float32))

    def training_step(self) -> numbanet.Loss:
        n, step = self.job.batch_size, self.model.trainer.training_step
        uniform = self.rng.device_uniform(N_UNIFORM * n, self.target).reshape(n, N_UNIFORM)
        points = self.truth.samples(uniform)
        distances = self.truth(points)
        weight = self.job.options.get("eikonal", 0.0)
        if not weight:
            return step(points, distances)
        network = self.model.network
        _, context = network.forward(points)
        slopes = network.backward(context, self.ones, gradient_mode="ignore")
        gradients = self.target.empty(n, 3)
        eikonal_gradients(self.target, n, slopes, 2 * float(weight) / n, gradients)
        network.double_backward(context, self.ones, gradients)
        return step(points, distances, gradient_mode="accumulate")

    def learned(self, points: np.ndarray) -> np.ndarray:
        """Distances [n] of the network at points [n, 3] of the host."""
        parts = [
            self.target.to_host(self.model(points[first : first + POINTS_AT_ONCE]))[:, 0]
            for first in range(0, len(points), POINTS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def given(self, points: np.ndarray) -> np.ndarray:
        """Distances [n] of the surface at points [n, 3] of the host."""
        found = self.truth(self.target.from_host(np.ascontiguousarray(points, np.float32)))
        return self.target.to_host(found)[:, 0]

    def measure(self) -> dict[str, float]:
        """Intersection over union of the insides, and mean distance of the surface."""
        on_surface, anywhere, inside = self.measured
        learned = self.target.to_host(self.model(anywhere))[:, 0] < 0
        union = np.count_nonzero(inside | learned)
        distance = float(np.mean(np.abs(self.learned(on_surface)), dtype=np.float64))
        return {
            "iou": float(np.count_nonzero(inside & learned) / union) if union else 1.0,
            "mean_distance": distance * self.data.scale,
        }

    def describe(self, metrics: dict[str, float]) -> str:
        return f"IoU {metrics['iou']:.3f}, {metrics['mean_distance']:.2g} off"

    def camera(self, width: int, height: int) -> Camera:
        """Camera of the pictures."""
        return Camera.looking((0.5, 0.5, 0.5), (1.5, -0.7, 1.2), width, height, angle=0.55)

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Render the learned surface, [height, width, 3] in [0, 1]."""
        return pictures(self.learned, camera.resized(width, height))[0]

    def draw(self) -> np.ndarray:
        return np.concatenate(pictures(self.learned, self.camera(PICTURE, PICTURE)), axis=1)

    def draw_reference(self) -> np.ndarray:
        return np.concatenate(pictures(self.given, self.camera(PICTURE, PICTURE)), axis=1)

    def data_report(self) -> dict[str, Any]:
        tables = self.data.tables
        is_mesh = len(tables[0]) > 2
        return {
            "name": self.data.name,
            "n_triangles": len(self.data.triangles) if is_mesh else None,
            "cube_side": self.data.scale,
            "cube_origin": list(self.data.origin),
            "note": self.data.note,
        }

    def places(self, n_steps: int) -> list[str]:
        return [*super().places(n_steps), *([MESH] if self.mesh_resolution else [])]

    def write_more(self) -> tuple[Path, ...]:
        """Write a mesh by marching cubes (Lorensen and Cline 1987; Lewiner et al. 2003)."""
        n = self.mesh_resolution
        if not n:
            return ()
        from skimage.measure import marching_cubes

        axis = np.linspace(0, 1, n + 1, dtype=np.float32)
        values = np.empty((n + 1, n + 1, n + 1), np.float32)
        y, z = np.meshgrid(axis, axis, indexing="ij")
        for k, x in enumerate(axis):
            points = np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3)
            values[k] = self.learned(points).reshape(n + 1, n + 1)
        if not values.min() < 0 < values.max():
            vertices, faces = np.empty((0, 3)), np.empty((0, 3), np.int32)
        elif not np.isfinite(values).all():
            raise AppError("the network gives distances that are infinite or NaN; no mesh is made")
        else:
            # its triangles turn their front to the outside, where values are larger
            vertices, faces, *_ = marching_cubes(values, 0.0, gradient_direction="descent")
        path = self.output / MESH
        write_mesh(path, vertices / n * self.data.scale + np.array(self.data.origin), faces)
        return (path,)
