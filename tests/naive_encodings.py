"""Slow twins of the encodings that need no tables; see naive.py."""

import math

import naive
import numpy as np
from numpy.polynomial import Legendre


class PerDimension(naive.Encoding):
    """Features of each dimension by itself."""

    def features(self, x, order):
        """The derivative of that order of the features of each dimension: [n, dim, feature]."""
        raise NotImplementedError

    def spread(self, x, order):
        """[n, feature, dim, ... dim], not zero where all dims are the same."""
        per_dim = self.features(x, order)
        n, n_dims, width = per_dim.shape
        full = np.zeros((n, n_dims, width) + (n_dims,) * order)
        for d in range(n_dims):
            full[(slice(None), d, slice(None)) + (d,) * order] = per_dim[:, d]
        return full.reshape(n, n_dims * width, *(n_dims,) * order)

    def forward(self, x, params):
        return self.spread(x, 0)

    def jacobian(self, x, params):
        return self.spread(x, 1)

    def hessian(self, x, params):
        return self.spread(x, 2)


class Frequency(PerDimension):
    def __init__(self, n_dims, n_frequencies=12):
        self.n_dims, self.n_frequencies = n_dims, n_frequencies
        self.n_outputs = 2 * n_dims * n_frequencies

    def features(self, x, order):
        factor = np.pi * 2.0 ** np.arange(self.n_frequencies)
        angle = x[:, :, None] * factor + order * np.pi / 2
        pairs = np.stack([np.sin(angle), np.cos(angle)], axis=-1) * factor[:, None] ** order
        return pairs.reshape(len(x), self.n_dims, 2 * self.n_frequencies)


class TriangleWave(PerDimension):
    def __init__(self, n_dims, n_frequencies=12):
        self.n_dims, self.n_frequencies = n_dims, n_frequencies
        self.n_outputs = n_dims * n_frequencies

    def periods(self, x):
        k = np.arange(self.n_frequencies)
        return x[:, :, None] * 2.0 ** (k - 1) + 0.25 * k

    def features(self, x, order):
        v = self.periods(x)
        if order == 0:
            return 4 * np.abs(v - np.floor(v) - 0.5) - 1
        if order == 1:
            slope = 2.0 ** (np.arange(self.n_frequencies) + 1)
            return np.where(np.floor(2 * v) % 2 == 0, -slope, slope)
        return np.zeros_like(v)

    def distance_to_border(self, x):
        halves = 2 * self.periods(x)
        return np.abs(halves - np.round(halves)).min(axis=2)


class Permutohedral(naive.Encoding):
    """Rosu and Behnke 2023, in coordinates in which vertices are integers."""

    padding = 0.0

    def __init__(
        self,
        n_dims,
        n_levels=16,
        n_features_per_level=2,
        log2_hashmap_size=19,
        base_resolution=16,
        per_level_scale=1.5,
    ):
        self.n_dims, self.n_levels, self.n_features = n_dims, n_levels, n_features_per_level
        self.alignment, self.n_outputs = n_features_per_level, n_levels * n_features_per_level
        resolutions = base_resolution * per_level_scale ** np.arange(n_levels)
        draws = naive.PCG32(1337)
        self.shifts = [[draws.next_float() for _ in range(n_dims)] for _ in range(n_levels)]
        unit = np.zeros((n_dims, n_dims))
        for i in range(n_dims):
            for j in range(i + 1):
                unit[i, j] = (i + 2 if i == j else 1) / np.sqrt((j + 1) * (j + 2))
        unit /= np.linalg.det(unit) ** (1 / n_dims)
        self.maps = resolutions[:, None, None] * unit
        self.scales = list(4 * resolutions)
        n_vertices = [(int(np.ceil(each)) + 2) ** n_dims for each in resolutions]
        self.entries = [min(2**log2_hashmap_size, 2 ** (n - 1).bit_length()) for n in n_vertices]
        self.first_entries = np.concatenate([[0], np.cumsum(self.entries)])
        self.n_params = int(self.first_entries[-1]) * n_features_per_level

    def initial_params(self, rng):
        return naive.strided_uniform(rng, self.n_params, -1e-4, 1e-4)

    def simplices(self, x, level):
        """Entries, weights, and the weights' derivatives by x, of the vertices of each sample."""
        for each in x:
            u = self.maps[level] @ each + self.shifts[level]
            vertex, order = np.floor(u).astype(int), np.argsort(-(u - np.floor(u)), kind="stable")
            steps = np.concatenate([[1], (u - np.floor(u))[order], [0]])
            slopes = np.zeros((self.n_dims + 2, self.n_dims))
            slopes[1:-1] = self.maps[level][order]
            for k in range(self.n_dims + 1):
                if k > 0:
                    vertex[order[k - 1]] += 1
                hashed = naive.xor_of_products([int(c) for c in vertex], (1, *naive.PRIMES[1:]))
                entry = hashed % self.entries[level] + int(self.first_entries[level])
                yield entry, steps[k] - steps[k + 1], slopes[k] - slopes[k + 1]

    def matrices(self, x):
        """For each level the matrix of weights, [n, n_entries], and its derivatives by x."""
        for level in range(self.n_levels):
            values = np.zeros((len(x), self.first_entries[-1]))
            slopes = np.zeros((*values.shape, self.n_dims))
            for k, (entry, weight, slope) in enumerate(self.simplices(x, level)):
                values[k // (self.n_dims + 1), entry] += weight
                slopes[k // (self.n_dims + 1), entry] += slope
            yield values, slopes

    def forward(self, x, params):
        table = params.reshape(-1, self.n_features)
        return np.concatenate([values @ table for values, _ in self.matrices(x)], axis=1)

    def jacobian(self, x, params):
        table = params.reshape(-1, self.n_features)
        rows = [np.einsum("ned,ef->nfd", slopes, table) for _, slopes in self.matrices(x)]
        return np.concatenate(rows, axis=1)

    def hessian(self, x, params):
        return np.zeros((len(x), self.n_outputs, self.n_dims, self.n_dims))

    def of_levels(self, dl_dy):
        return np.split(dl_dy, self.n_levels, axis=1)

    def backward_params(self, x, params, dl_dy):
        pairs = zip(self.matrices(x), self.of_levels(dl_dy), strict=True)
        return sum(values.T @ own for (values, _), own in pairs).reshape(-1)

    def double_backward_params(self, x, params, dl_dy, dl_ddx):
        pairs = zip(self.matrices(x), self.of_levels(dl_dy), strict=True)
        found = [np.einsum("ned,nd,nf->ef", slopes, dl_ddx, own) for (_, slopes), own in pairs]
        return sum(found).reshape(-1)

    def distance_to_border(self, x):
        """Of whole numbers and of each other, whichever coordinates come closest."""
        nearest = np.full((len(x), 1), np.inf)
        for level in range(self.n_levels):
            u = x @ self.maps[level].T + self.shifts[level]
            differences = (u[:, :, None] - u[:, None, :]).reshape(len(x), -1)
            same = np.eye(self.n_dims, dtype=bool).reshape(-1)
            each = np.concatenate([u, differences[:, ~same]], axis=1)
            distance = np.abs(each - np.round(each)).min(axis=1, keepdims=True)
            nearest = np.minimum(nearest, distance)
        return nearest


class RandomFourier(naive.Encoding):
    """Of given frequencies, or of those that Box and Muller make of the stream of a seed."""

    def __init__(self, n_dims, n_features=64, scale=1.0, seed=1337, frequencies=None):
        self.n_dims = n_dims
        if frequencies is None:
            draws, n = naive.PCG32(seed), n_features // 2 * n_dims
            u, v = np.array([draws.next_float() for _ in range(2 * n)]).reshape(2, n)
            normal = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
            frequencies = scale * normal.reshape(-1, n_dims)
        self.frequencies = np.array(frequencies, np.float32).astype(np.float64)
        self.n_outputs = 2 * len(self.frequencies)

    def waves(self, x, order):
        angle = 2 * np.pi * x @ self.frequencies.T + order * np.pi / 2
        return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(x), self.n_outputs)

    def forward(self, x, params):
        return self.waves(x, 0)

    def jacobian(self, x, params):
        slopes = np.repeat(2 * np.pi * self.frequencies, 2, axis=0)
        return self.waves(x, 1)[:, :, None] * slopes

    def hessian(self, x, params):
        slopes = np.repeat(2 * np.pi * self.frequencies, 2, axis=0)
        return self.waves(x, 2)[:, :, None, None] * slopes[:, :, None] * slopes[:, None, :]


class SphericalHarmonics(naive.Encoding):
    padding_first = True

    def __init__(self, n_dims, degree=4):
        self.n_dims, self.degree = n_dims, degree
        self.n_outputs = degree**2

    def terms(self):
        """Index, a power m, what it is multiplied by as a polynomial of z, and which part of it."""
        for l in range(self.degree):  # noqa: E741
            for m in range(-l, l + 1):
                n = abs(m)
                ratio = math.factorial(l - n) / math.factorial(l + n)
                factor = (-1) ** n * math.sqrt((2 * l + 1) / (4 * math.pi) * ratio)
                if m:
                    factor *= math.sqrt(2)
                polynomial = Legendre.basis(l).deriv(n) if n else Legendre.basis(l)
                yield l * l + l + m, n, factor * polynomial, np.imag if m < 0 else np.real

    def derivative(self, x, orders):
        """[n, feature]: derived orders[d] times by dimension d."""
        vx, vy, vz = (2 * x - 1).T
        total = sum(orders)
        result = np.zeros((len(x), self.n_outputs))
        for index, m, polynomial, part in self.terms():
            n_power = orders[0] + orders[1]
            if n_power > m:
                continue
            power = math.perm(m, n_power) * (vx + 1j * vy) ** (m - n_power) * 1j ** orders[1]
            along_z = polynomial.deriv(orders[2]) if orders[2] else polynomial
            result[:, index] = 2**total * along_z(vz) * part(power)
        return result

    def forward(self, x, params):
        return self.derivative(x, (0, 0, 0))

    def jacobian(self, x, params):
        return np.stack([self.derivative(x, tuple(e)) for e in np.eye(3, dtype=int)], axis=-1)

    def hessian(self, x, params):
        axes = np.eye(3, dtype=int)
        rows = [[self.derivative(x, tuple(e + f)) for f in axes] for e in axes]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


class Empty(naive.Encoding):
    n_outputs = 0

    def __init__(self, n_dims):
        self.n_dims = n_dims

    def forward(self, x, params):
        return np.zeros((len(x), 0))

    def jacobian(self, x, params):
        return np.zeros((len(x), 0, self.n_dims))

    def hessian(self, x, params):
        return np.zeros((len(x), 0, self.n_dims, self.n_dims))


class Composite(naive.Encoding):
    def __init__(self, n_dims, nested, reduction="Concatenation", n_columns=None):
        self.n_dims, self.nested, self.reduction = n_dims, nested, reduction.lower()
        given = [config.get("n_dims_to_encode") for config in nested]
        rest = n_dims - sum(width or 0 for width in given)
        parts, end = [], 0
        for config, width in zip(nested, given, strict=True):
            begin = config.get("dims_to_encode_begin", end)
            end = begin + (rest if width is None else width)
            if end > begin:
                parts.append((naive.encoding(config, end - begin), slice(begin, end)))
        alignments = [twin.alignment for twin, _ in parts]
        self.alignment = math.lcm(*alignments)
        self.parts, width = [], 0
        for k, (twin, dims) in enumerate(parts):
            start = 0 if self.reduction != "concatenation" else width
            divisor = self.alignment
            if self.reduction == "concatenation":
                divisor = alignments[k + 1] if k + 1 < len(parts) else 1
            width = naive.next_multiple(start + twin.n_outputs, divisor)
            if n_columns and (self.reduction != "concatenation" or k + 1 == len(parts)):
                width = n_columns
            self.parts.append((twin.padded(width - start), dims, slice(start, width)))
        self.n_outputs = width
        self.n_params = sum(twin.n_params for twin, *_ in self.parts)
        scales = [scale for twin, *_ in self.parts for scale in getattr(twin, "scales", ())]
        if scales:
            self.scales = scales

    def padded(self, n_columns):
        return Composite(self.n_dims, self.nested, self.reduction, n_columns)

    def initial_params(self, rng):
        return np.concatenate([twin.initial_params(rng) for twin, *_ in self.parts])

    def distance_to_border(self, x):
        distance = np.full(x.shape, np.inf)
        for twin, dims, _ in self.parts:
            distance[:, dims] = np.minimum(distance[:, dims], twin.distance_to_border(x[:, dims]))
        return distance

    def each(self, x, params):
        """The twin, its inputs, its parameters, their slices and that of its features."""
        start = 0
        for twin, dims, columns in self.parts:
            own = slice(start, start + twin.n_params)
            yield twin, x[:, dims], None if params is None else params[own], dims, columns, own
            start = own.stop

    def derivatives(self, x, params):
        """The features of each part in all columns, with gradients and Hessians by all inputs.

        Other columns hold what changes nothing: zeros, or ones for a product.
        """
        n, n_dims, width = len(x), self.n_dims, self.n_outputs
        for twin, own_x, own_params, dims, columns, _ in self.each(x, params):
            value = np.full((n, width), 1.0 if self.reduction == "product" else 0.0)
            gradient = np.zeros((n, width, n_dims))
            hessian = np.zeros((n, width, n_dims, n_dims))
            value[:, columns] = twin.forward(own_x, own_params)
            gradient[:, columns, dims] = twin.jacobian(own_x, own_params)
            hessian[:, columns, dims, dims] = twin.hessian(own_x, own_params)
            yield value, gradient, hessian

    def combined(self, x, params):
        value, gradient, hessian = 1.0, 0.0, 0.0
        parts = list(self.derivatives(x, params))
        if self.reduction != "product":
            return [sum(part[order] for part in parts) for order in range(3)]
        value, gradient, hessian = parts[0]
        for other, slope, curvature in parts[1:]:
            cross = gradient[..., None] * slope[..., None, :]
            hessian = (
                hessian * other[..., None, None]
                + value[..., None, None] * curvature
                + cross
                + np.swapaxes(cross, -1, -2)
            )
            gradient = gradient * other[..., None] + value[..., None] * slope
            value = value * other
        return value, gradient, hessian

    def forward(self, x, params):
        return self.combined(x, params)[0]

    def jacobian(self, x, params):
        return self.combined(x, params)[1]

    def hessian(self, x, params):
        return self.combined(x, params)[2]

    def others(self, k, x, params, dl_ddx):
        """The product of all parts but k, and its slope in direction dl_ddx."""
        value, slope = 1.0, 0.0
        for j, (factor, gradient, _) in enumerate(self.derivatives(x, params)):
            if j != k:
                along = np.einsum("nkd,nd->nk", gradient, dl_ddx)
                value, slope = value * factor, slope * factor + value * along
        return value, slope

    def backward_params(self, x, params, dl_dy):
        return self.gradient_of_params(x, params, dl_dy, None)

    def double_backward_params(self, x, params, dl_dy, dl_ddx):
        return self.gradient_of_params(x, params, dl_dy, dl_ddx)

    def gradient_of_params(self, x, params, dl_dy, dl_ddx):
        found = []
        direction = np.zeros_like(x) if dl_ddx is None else dl_ddx
        for k, (twin, own_x, own_params, dims, columns, _) in enumerate(self.each(x, params)):
            if not twin.n_params:
                continue
            value, slope = 1.0, 0.0
            if self.reduction == "product":
                value, slope = self.others(k, x, params, direction)
            weighted = (dl_dy * value)[:, columns]
            if dl_ddx is None:
                found.append(twin.backward_params(own_x, own_params, weighted))
                continue
            turned = (dl_dy * slope)[:, columns]
            found.append(
                twin.double_backward_params(own_x, own_params, weighted, dl_ddx[:, dims])
                + twin.backward_params(own_x, own_params, turned)
            )
        return np.concatenate([np.zeros(0), *found])


def one_blob_frequency(n_dims, n_frequencies=12, n_bins=4):
    nested = [
        {"otype": "TriangleWave", "n_dims_to_encode": 3, "n_frequencies": n_frequencies},
        {"otype": "OneBlob", "n_dims_to_encode": 5, "n_bins": n_bins},
        {"otype": "Identity"},
    ]
    return Composite(n_dims, nested)


ENCODINGS = {
    "frequency": Frequency,
    "trianglewave": TriangleWave,
    "permutohedral": Permutohedral,
    "randomfourier": RandomFourier,
    "sphericalharmonics": SphericalHarmonics,
    "empty": Empty,
    "composite": Composite,
    "oneblobfrequency": one_blob_frequency,
    "nrc": one_blob_frequency,
}
