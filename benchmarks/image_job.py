"""The job that is measured: learn a photograph with a 2-D hash grid and a small ReLU network.

Sizes, initial parameters, batches of positions and colours, and a slow float64 step to verify
against. Uses NumPy only and nothing of numbanet, so that it can judge numbanet as well.
Vectors of parameters hold the three matrices row by row, then the table of grid entries; the
output matrix has 3 rows here (numbanet pads it to 16, which adds work but no information).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONFIG = {
    "loss": {"otype": "RelativeL2"},
    "optimizer": {
        "otype": "Adam",
        "learning_rate": 1e-2,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-15,
        "l2_reg": 1e-6,
    },
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 15,
        "base_resolution": 16,
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

LEARNING_RATE, BETA1, BETA2, EPSILON, L2_REG = 1e-2, 0.9, 0.99, 1e-15, 1e-6
N_FEATURES = 2
SHAPES = ((64, 32), (64, 64), (3, 64))
N_NETWORK = sum(rows * columns for rows, columns in SHAPES)
HASH_PRIME = 2654435761
LOSS_EPSILON = 0.01


@dataclass(frozen=True)
class Level:
    """One level of the grid: where it starts in the table and how corners find their entry."""

    scale: float  # cells per unit length
    resolution: int  # vertices per axis
    n_entries: int
    offset: int  # first entry in the table
    hashed: bool


def grid_levels():
    """Return the 16 levels of the grid, coarse to fine."""
    log2_scale = np.log2(np.float32(1.5))
    levels, offset = [], 0
    for i in range(16):
        growth = np.float32(2.0 ** float(np.float32(i) * log2_scale))
        scale = growth * np.float32(16) - np.float32(1)
        resolution = math.ceil(scale) + 1
        n_dense = (resolution**2 + 7) // 8 * 8
        n_entries = min(n_dense, 2**15)
        hashed = n_entries < resolution**2
        levels.append(Level(float(scale), resolution, n_entries, offset, hashed))
        offset += n_entries
    return levels


LEVELS = grid_levels()
N_ENTRIES = sum(level.n_entries for level in LEVELS)
N_PARAMS = N_NETWORK + N_ENTRIES * N_FEATURES


def split(params, shapes=SHAPES):
    """Return views of a parameter vector: the matrices and the table [entries, 2]."""
    parts, start = [], 0
    for rows, columns in shapes:
        parts.append(params[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return [*parts, params[start:].reshape(-1, N_FEATURES)]


def initial_params(seed=1337, table_scale=1e-4, shapes=SHAPES, n_entries=N_ENTRIES):
    """Draw Xavier-uniform matrices (for 16 padded outputs) and a grid near zero."""
    rng = np.random.default_rng(seed)
    n_params = sum(map(math.prod, shapes)) + n_entries * N_FEATURES
    params = rng.uniform(-1, 1, n_params).astype(np.float32)
    *matrices, table = split(params, shapes)
    for matrix in matrices:
        rows, columns = matrix.shape
        scale = np.float32(math.sqrt(6 / (max(rows, 16) + columns)))
        np.multiply(matrix, scale, out=matrix)
    table *= np.float32(table_scale)
    return params


class Photograph:
    """An image in linear light that can be looked up anywhere."""

    def __init__(self, path):
        from PIL import Image

        pixels = np.asarray(Image.open(Path(path)).convert("RGB"), np.float32)
        self.linear = (pixels / np.float32(255)) ** np.float32(2.2)

    def look_up(self, positions):
        """Interpolate bilinearly; texel centres lie at (i + 0.5) / size, borders are clamped."""
        height, width, _ = self.linear.shape
        at = positions * np.float32([width, height]) - np.float32(0.5)
        cell = np.floor(at)
        right, down = np.moveaxis((at - cell)[:, :, None], 1, 0)
        x, y = cell.astype(np.int64).T
        x0, x1 = np.clip(x, 0, width - 1), np.clip(x + 1, 0, width - 1)
        y0, y1 = np.clip(y, 0, height - 1), np.clip(y + 1, 0, height - 1)
        image = self.linear
        upper = image[y0, x0] * (1 - right) + image[y0, x1] * right
        lower = image[y1, x0] * (1 - right) + image[y1, x1] * right
        return upper * (1 - down) + lower * down

    def batch(self, n, rng):
        """Return n random positions in [0,1)^2 and their colours."""
        positions = rng.random((n, 2), dtype=np.float32)
        return positions, self.look_up(positions)

    def pixel_centres(self):
        """Return the position of every pixel, row by row."""
        height, width, _ = self.linear.shape
        y, x = np.mgrid[0:height, 0:width]
        centres = np.stack([(x.ravel() + 0.5) / width, (y.ravel() + 0.5) / height], axis=1)
        return centres.astype(np.float32)

    def psnr(self, outputs):
        """Return the peak signal-to-noise ratio in dB: in linear light, and as displayed."""
        truth = self.linear.reshape(-1, 3)
        shown = np.clip(outputs, 0, 1)
        decibels = [
            -10 * np.log10(np.mean((a - b) ** 2, dtype=np.float64))
            for a, b in ((shown, truth), (shown ** (1 / 2.2), truth ** (1 / 2.2)))
        ]
        return tuple(float(value) for value in decibels)


def corners(positions):
    """Yield (level number, entry of each sample, weight of each sample) for all 64 corners."""
    for number, level in enumerate(LEVELS):
        # rounded once to float32, as a fused multiply-add: the finest level has only 11 bits left
        at = (positions.astype(np.float64) * level.scale + 0.5).astype(np.float32)
        at = at.astype(np.float64)
        cell = np.floor(at)
        fraction = at - cell
        for corner in (0, 0), (1, 0), (0, 1), (1, 1):
            x, y = (cell + corner).astype(np.uint64).T
            if level.hashed:
                index = (x ^ (y * np.uint64(HASH_PRIME))) & np.uint64(0xFFFFFFFF)
            else:
                index = x + y * np.uint64(level.resolution)
            entry = (index % np.uint64(level.n_entries)).astype(np.int64) + level.offset
            yield number, entry, np.prod(np.where(corner, fraction, 1 - fraction), axis=1)


class Reference:
    """The same training step, slowly, in float64: what every method is verified against.

    Args:
        params: to start from.
        skips_zero_gradients: whether Adam leaves grid entries without a gradient as they are.
        shapes: of the matrices.
        encode: from positions to features, for an encoding other than the grid; it has no
            parameters.
        epsilon, l2_reg: Adam's.
    """

    def __init__(
        self,
        params,
        skips_zero_gradients=True,
        *,
        shapes=SHAPES,
        encode=None,
        epsilon=EPSILON,
        l2_reg=L2_REG,
    ):
        self.params = params.astype(np.float64)
        self.skips_zero_gradients = skips_zero_gradients
        self.shapes, self.encode = shapes, encode
        self.epsilon, self.l2_reg = epsilon, l2_reg
        self.moments = np.zeros((2, params.size))
        self.n_updates = np.zeros(params.size)

    def features(self, positions, table):
        if self.encode is not None:
            return self.encode(positions)
        features = np.zeros((len(positions), 2 * len(LEVELS)))
        for number, entry, weight in corners(positions):
            features[:, 2 * number : 2 * number + 2] += weight[:, None] * table[entry]
        return features

    def forward(self, positions):
        """Return the activations: features, hidden layers, outputs."""
        *matrices, table = split(self.params, self.shapes)
        hidden = [self.features(positions, table)]
        for matrix in matrices[:-1]:
            hidden.append(np.maximum(hidden[-1] @ matrix.T, 0))
        return [*hidden, hidden[-1] @ matrices[-1].T]

    def loss_and_gradients(self, positions, targets):
        """Return the loss and the gradient vector."""
        *hidden, outputs = self.forward(positions)
        *matrices, _ = split(self.params, self.shapes)
        gradients = np.zeros(self.params.size)
        *dl_dmatrices, dl_dtable = split(gradients, self.shapes)
        difference, scale = outputs - targets, 1 / (outputs**2 + LOSS_EPSILON)
        dl_dy = 2 * difference * scale / outputs.size
        for i in reversed(range(len(matrices))):
            dl_dmatrices[i][:] = dl_dy.T @ hidden[i]
            dl_dy = dl_dy @ matrices[i]
            if i > 0:
                dl_dy *= hidden[i] > 0
        for number, entry, weight in corners(positions) if self.encode is None else ():
            for feature in range(2):
                values = weight * dl_dy[:, 2 * number + feature]
                dl_dtable[:, feature] += np.bincount(entry, values, N_ENTRIES)
        return float(np.mean(difference**2 * scale)), gradients

    def step(self, positions, targets):
        """Make one Adam step and return the loss before it."""
        loss, gradients = self.loss_and_gradients(positions, targets)
        is_network = np.arange(self.params.size) < sum(map(math.prod, self.shapes))
        active = is_network | (gradients != 0) | (not self.skips_zero_gradients)
        gradients += self.l2_reg * self.params * is_network
        for moment, beta, value in zip(
            self.moments, (BETA1, BETA2), (gradients, gradients**2), strict=True
        ):
            moment[active] = beta * moment[active] + (1 - beta) * value[active]
        self.n_updates += active
        first, second = (
            moment / np.maximum(1 - beta**self.n_updates, 1e-300)
            for moment, beta in zip(self.moments, (BETA1, BETA2), strict=True)
        )
        change = LEARNING_RATE * first / (np.sqrt(second) + self.epsilon)
        self.params -= np.where(active, change, 0)
        return loss
