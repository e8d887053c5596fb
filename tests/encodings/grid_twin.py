"""A slow grid in NumPy, from the formulas: forward only, so that derivatives come from differences.

Nothing is imported from numbanet. Positions are float64, vertices are Python's integers.
"""

import itertools
import math

import naive
import numpy as np

UINT32 = 2**32 - 1
NAMES = "CoherentPrime", "Prime", "ReversedPrime", "Rng", "BaseConvert"
HASHES = {name: naive.HASHES[name.lower()] for name in NAMES}
BLENDS = {"Linear": lambda t: t, "Smoothstep": lambda t: t * t * (3 - 2 * t)}


class GridTwin:
    def __init__(
        self,
        n_dims,
        type="Hash",
        n_levels=16,
        n_features_per_level=2,
        log2_hashmap_size=19,
        base_resolution=16,
        per_level_scale=2.0,
        interpolation="Linear",
        hash="CoherentPrime",
        fixed_point_pos=False,
    ):
        self.n_dims, self.n_levels, self.n_features = n_dims, n_levels, n_features_per_level
        self.type, self.interpolation, self.hash = type, interpolation, HASHES[hash]
        self.fixed_point_pos = fixed_point_pos
        float32 = np.float32
        log2_growth = float32(math.log2(float32(per_level_scale)))
        self.scales, self.resolutions, self.sizes = [], [], []
        for level in range(n_levels):
            growth = float32(2.0 ** float(float32(level) * log2_growth))
            self.scales.append(float(growth * float32(base_resolution) - float32(1)))
            resolution = math.ceil(self.scales[-1]) + 1
            size = -(-min(resolution**n_dims, 2**31 - 1) // 8) * 8
            limits = {"Hash": 2**log2_hashmap_size, "Tiled": base_resolution**n_dims}
            self.resolutions.append(resolution)
            self.sizes.append(min(size, limits.get(type, size)))
        self.offsets = [sum(self.sizes[:level]) for level in range(n_levels)]
        self.n_params = sum(self.sizes) * self.n_features

    def entry(self, level, vertex):
        size, resolution = self.sizes[level], self.resolutions[level]
        if self.type == "Hash" and size < resolution**self.n_dims:
            index = self.hash(vertex)
        else:
            index = sum(c * resolution**d for d, c in enumerate(vertex))
            if resolution**self.n_dims < 2**32:
                index &= UINT32
        return self.offsets[level] + index % size

    def locate(self, level, x):
        """Cell [n, d] as integers, and place in it."""
        scale = self.scales[level]
        if self.fixed_point_pos:
            spacing = min(max(int(np.float32(2**32) / np.float32(scale)), 1), UINT32)
            shifted = x.astype(np.int64) + spacing // 2
            cell = shifted // spacing
            return cell, (shifted - cell * spacing) * scale / 2**32
        position = scale * x + 0.5
        return np.floor(position).astype(np.int64), position - np.floor(position)

    def corners(self, level, x):
        """Entry [n] and weight [n] of each corner."""
        cell, t = self.locate(level, x)
        offsets = list(itertools.product((0, 1), repeat=self.n_dims))
        if self.interpolation == "Nearest":
            offsets, t = offsets[:1], np.zeros_like(t)
        right = BLENDS.get(self.interpolation, BLENDS["Linear"])(t)
        for offset in offsets:
            vertices = (cell + np.array(offset)) & UINT32
            entries = [self.entry(level, vertex) for vertex in vertices.tolist()]
            yield np.array(entries), np.where(offset, right, 1 - right).prod(axis=1)

    def forward(self, x, params):
        table = params.astype(np.float64).reshape(-1, self.n_features)
        y = np.zeros((len(x), self.n_levels, self.n_features))
        for level in range(self.n_levels):
            for entries, weights in self.corners(level, x):
                y[:, level] += table[entries] * weights[:, None]
        return y.reshape(len(x), -1)

    def backward_params(self, x, dl_dy):
        dl_dy = dl_dy.astype(np.float64).reshape(len(x), self.n_levels, self.n_features)
        gradient = np.zeros((self.n_params // self.n_features, self.n_features))
        for level in range(self.n_levels):
            for entries, weights in self.corners(level, x):
                np.add.at(gradient, entries, dl_dy[:, level] * weights[:, None])
        return gradient.reshape(-1)

    def along(self, x, params, direction, step=1e-5):
        """The derivative of forward along `direction` [n, d], by central differences."""
        there, back = (self.forward(x + sign * step * direction, params) for sign in (1, -1))
        return (there - back) / (2 * step)

    def distance_to_border(self, x):
        """In cells, over all levels: [n]."""
        positions = [scale * x + 0.5 for scale in self.scales]
        return np.min([np.abs(p - np.round(p)) for p in positions], axis=(0, 2))
