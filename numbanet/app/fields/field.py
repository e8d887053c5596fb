"""A radiance field in the manner of instant-ngp: two heads and an occupancy grid.

The head for densities maps a position to 16 features, of which the first is the logarithm of the
density; the head for colours maps a direction and the other 15 to a colour (Mueller et al. 2022,
section 5.4). Positions are in [0, 1]^3, the outermost level of the grid; the finest one is the
middle of that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import numbanet
from numbanet.app.fields.field_jobs import N_FEATURES, N_INPUTS, find_densities, join_heads
from numbanet.random import Pcg32
from numbanet.shown import shown
from numbanet.targets import target_for
from numbanet.volumes import Camera, OccupancyGrid, Samples, composite, visible
from numbanet.volumes.room import whole

SECTIONS = "density", "colour", "grid"
MOST_STEPS, MOST_LEVELS, MOST_RESOLUTION = 1 << 14, 8, 512
DIAGONAL = math.sqrt(3.0)
RAYS_AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 14}
COLOUR_ENCODING = {
    "otype": "Composite",
    "nested": [
        {"otype": "SphericalHarmonics", "degree": 4, "n_dims_to_encode": 3},
        {"otype": "Identity", "n_dims_to_encode": N_INPUTS - 3},
    ],
}
OPTIMIZER = {
    "otype": "Adam",
    "learning_rate": 1e-2,
    "beta1": 0.9,
    "beta2": 0.99,
    "epsilon": 1e-15,
}


@dataclass(frozen=True)
class FieldSize:
    """Size of a radiance field, and of a step of its training.

    Args:
        n_levels, log2_hashmap_size, finest: of the hash grid, whose last level has the resolution
            `finest`.
        resolution: cells of the occupancy grid along each axis.
        n_steps: along the diagonal of the finest level of the occupancy grid.
        batch_size: samples of a step that light reaches, about.
    """

    n_levels: int
    log2_hashmap_size: int
    finest: int
    resolution: int
    n_steps: int
    batch_size: int


SIZES = {
    "cpu": FieldSize(8, 15, 256, 64, 256, 1 << 14),
    "cuda": FieldSize(16, 19, 2048, 128, 1024, 1 << 18),
}


def config_for(size: FieldSize, n_grid_levels: int = 1) -> dict[str, Any]:
    """Config of a field: the sections "density", "colour" and "grid"."""
    growth = (size.finest * 2 ** (n_grid_levels - 1) / 16) ** (1 / (size.n_levels - 1))
    encoding = {
        "otype": "HashGrid",
        "n_levels": size.n_levels,
        "n_features_per_level": 2,
        "log2_hashmap_size": size.log2_hashmap_size,
        "base_resolution": 16,
        "per_level_scale": growth,
    }
    network = {"otype": "FullyFusedMLP", "activation": "ReLU", "n_neurons": 64}
    return {
        "density": {
            "encoding": encoding,
            "network": {**network, "n_hidden_layers": 1, "output_activation": "None"},
            "optimizer": OPTIMIZER,
        },
        "colour": {
            "encoding": COLOUR_ENCODING,
            "network": {**network, "n_hidden_layers": 2, "output_activation": "Sigmoid"},
            "optimizer": OPTIMIZER,
        },
        "grid": {"resolution": size.resolution, "n_levels": n_grid_levels},
        "n_steps": size.n_steps,
    }


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config with exactly these sections; the models check their contents."""
    if not isinstance(config, Mapping):
        raise ValueError(f"expected an object, got {shown(config)}")
    for name in config.keys() - {*SECTIONS, "n_steps"}:
        raise ValueError(f"{shown(name)} is no section; there are {', '.join(SECTIONS)}, n_steps")
    for name in SECTIONS:
        if not isinstance(config.get(name), Mapping):
            raise ValueError(f"{name}: expected an object, got {shown(config.get(name))}")
    for name in config["grid"].keys() - {"resolution", "n_levels"}:
        raise ValueError(f"grid: {shown(name)} is no option; there are resolution, n_levels")
    whole("n_steps", config.get("n_steps"), 1, MOST_STEPS)
    whole("grid.n_levels", config["grid"].get("n_levels"), 1, MOST_LEVELS)
    whole("grid.resolution", config["grid"].get("resolution"), 4, MOST_RESOLUTION)
    return dict(config)


class RadianceField:
    """Density and colour as functions on [0, 1]^3, with the occupancy grid that skips empty space.

    Args:
        config: see config_for.
        seed: of the initial parameters.
        device, precision: as for numbanet.create_from_config.

    Raises:
        ConfigError, ValueError, RuntimeError: as create_from_config.
    """

    def __init__(
        self, config: Mapping[str, Any], seed: int = 1337, device: Any = "auto",
        precision: str | None = None,
    ):  # fmt: skip
        self.config = checked(config)
        target = target_for(device, precision)
        place = {"device": target.name, "precision": target.precision}
        self.density = numbanet.create_from_config(
            3, N_FEATURES, config["density"], seed=seed, **place
        )
        self.colour = numbanet.create_from_config(
            N_INPUTS, 3, config["colour"], seed=seed + 1, **place
        )
        self.target = self.density.network.target
        n_levels = config["grid"]["n_levels"]
        half = 0.5**n_levels
        box = np.full((2, 3), 0.5) + np.array([[-half], [half]])
        self.grid = OccupancyGrid(box, config["grid"]["resolution"], n_levels, device=self.target)
        self.step = 2 * half * DIAGONAL / config["n_steps"]
        self.cone = 0.0 if n_levels == 1 else 1 / 256
        # a cell that absorbs 1 % over a step is not empty
        self.threshold = 0.01 / self.step

    @property
    def kind(self) -> str:
        """Kind of the device: "cpu" or "cuda"."""
        return self.target.name.partition(":")[0]

    def densities(self, positions: Any, features: Any = None) -> tuple[Any, Any]:
        """Densities [n] of positions [n, 3], and all features, [n, 16]."""
        features = self.density.network(positions, out=features)
        densities = self.target.empty(features.shape[0])
        find_densities(self.target, features.shape[0], features, densities)
        return densities, features

    def update_grid(self, rng: Pcg32, part: int = 0, n_parts: int = 1, decay: float = 0.95) -> None:
        """Update the occupancy grid, or one part of it, with the densities in its cells."""
        self.grid.update(
            lambda positions: self.densities(positions)[0], rng, threshold=self.threshold,
            part=part, n_parts=n_parts, decay=decay**n_parts,
        )  # fmt: skip

    def show_grid(self) -> None:
        """Set the grid's bits from the densities that it holds."""
        self.grid.set_bits(self.threshold)

    def march(self, origins: Any, directions: Any, **options: Any) -> Samples:
        """Samples of rays; see OccupancyGrid.march."""
        return self.grid.march(origins, directions, self.step, cone=self.cone, **options)

    def seen(self, origins: Any, directions: Any, background: Any) -> Any:
        """Colours that rays see, [n, 3]; on the target."""
        samples = self.march(origins, directions)
        densities, features = self.densities(samples.positions)
        kept, sources = visible(samples, densities)
        densities, inputs = self.joined(kept, sources, features, directions)
        colours = self.colour.network(inputs)
        return composite(kept, densities, colours, background).colours

    def joined(
        self, samples: Samples, sources: Any, features: Any, directions: Any, out: Any = None
    ) -> tuple[Any, Any]:
        """Densities [n] and inputs of the head for colours [n, 18] of visible samples."""
        n, target = len(samples), self.target
        densities, inputs = out or (target.empty(n), target.zeros(n, N_INPUTS))
        join_heads(
            target, n, sources, features, samples.rays, directions, samples.total, densities, inputs
        )
        return densities, inputs

    def picture(
        self, camera: Camera, width: int | None = None, height: int | None = None,
        background: Any = (1.0, 1.0, 1.0),
    ) -> np.ndarray:  # fmt: skip
        """Render the view of a camera, float32 [height, width, 3] in [0, 1]."""
        if width is not None or height is not None:
            camera = camera.resized(width or camera.width, height or camera.height)
        rows = max(1, RAYS_AT_ONCE[self.kind] // camera.width)
        picture = np.empty((camera.height, camera.width, 3), np.float32)
        for first in range(0, camera.height, rows):
            last = min(first + rows, camera.height)
            rays = camera.rays(self.target, first, last)
            seen = self.target.to_host(self.seen(*rays, background))
            picture[first:last] = seen.reshape(last - first, camera.width, 3)
        return np.clip(picture, 0, 1)
