"""The formulas of the components as one writes them in NumPy: vectorised, in the input's dtype.

FORMULAS maps (kind, otype) to functions; cpu_components.py says what they are given. Nothing of
numbanet is used, so that they can judge it as well.
"""

import math
from functools import partial

import numpy as np

# Encodings: (x, params, config) -> features, and (x, params, config, dl_dy) -> the gradient of the
# parameters, or of x where there are none. x lies in [0, 1)^2.


def identity(x, params, config):
    return x * 1.0 + 0.0


def identity_gradient(x, params, config, dl_dy):
    return dl_dy * 1.0


def bins(x, n_bins):
    """The bins of each x and its neighbours, and the distance to the left border of its own."""
    position = x * n_bins
    middle = np.floor(position)
    neighbours = (middle[..., None] + np.array([-1, 0, 1], x.dtype)).astype(np.intp) % n_bins
    return neighbours, position - middle


def one_blob(x, params, config):
    n_bins = config.get("n_bins", 16)
    neighbours, u = bins(x, n_bins)

    def above(u):  # the blob's integral from u to 1
        return 0.5 - u * (15 / 16 + u * u * (3 / 16 * u * u - 0.625))

    left, right = above(u), above(1 - u)
    y = np.zeros((*x.shape, n_bins), x.dtype)
    values = np.stack([left, 1 - left - right, right], axis=-1)
    np.put_along_axis(y, neighbours, values, axis=-1)
    return y.reshape(len(x), -1)


def one_blob_gradient(x, params, config, dl_dy):
    n_bins = config.get("n_bins", 16)
    neighbours, u = bins(x, n_bins)
    left, right = -15 / 16 * (1 - u * u) ** 2, 15 / 16 * (1 - (1 - u) ** 2) ** 2
    slopes = np.stack([left, -left - right, right], axis=-1)
    rows = dl_dy.reshape(*x.shape, n_bins)
    return n_bins * (np.take_along_axis(rows, neighbours, axis=-1) * slopes).sum(axis=-1)


def grid_levels(kind, config):
    """(scale, resolution, entries, first entry) of each level of a 2-D grid."""
    n_levels, base = config.get("n_levels", 16), config.get("base_resolution", 16)
    default = math.exp(math.log(256 / base) / (n_levels - 1)) if kind == "Dense" else 2.0
    growth = np.log2(np.float32(config.get("per_level_scale", default)))
    first = 0
    for level in range(n_levels):
        scale = np.exp2(np.float32(level) * growth) * np.float32(base) - np.float32(1)
        resolution = math.ceil(scale) + 1
        n_entries = -(-(resolution**2) // 8) * 8
        if kind == "Tiled":
            n_entries = min(n_entries, base**2)
        if kind == "Hash":
            n_entries = min(n_entries, 2 ** config.get("log2_hashmap_size", 19))
        yield scale, resolution, n_entries, first
        first += n_entries


def grid_corners(kind, x, config):
    """(level, entries, weights) of the four corners of each level."""
    for level, (scale, resolution, n_entries, first) in enumerate(grid_levels(kind, config)):
        position = x * x.dtype.type(scale) + 0.5
        cell = np.floor(position)
        t = position - cell
        cell = cell.astype(np.uint32)
        for corner in (0, 0), (1, 0), (0, 1), (1, 1):
            i, j = (cell + np.array(corner, np.uint32)).T
            if kind == "Hash" and n_entries < resolution**2:
                entry = i ^ (j * np.uint32(2654435761))
            else:
                entry = i + j * np.uint32(resolution)
            w, v = (t[:, d] if corner[d] else 1 - t[:, d] for d in range(2))
            yield level, first + (entry % np.uint32(n_entries)).astype(np.intp), w * v


def grid(kind, x, params, config):
    table = params.reshape(-1, 2)
    y = np.zeros((len(x), 2 * config.get("n_levels", 16)), x.dtype)
    for level, entry, weight in grid_corners(kind, x, config):
        y[:, 2 * level : 2 * level + 2] += weight[:, None] * table[entry]
    return y


def grid_gradient(kind, x, params, config, dl_dy):
    gradient = np.zeros((2, len(params) // 2), x.dtype)
    for level, entry, weight in grid_corners(kind, x, config):
        for feature in range(2):  # np.bincount is many times faster than np.add.at
            values = weight * dl_dy[:, 2 * level + feature]
            n_touched = entry.max() + 1
            gradient[feature, :n_touched] += np.bincount(entry, values)
    return gradient.T.reshape(-1)


# Activations: x -> y, and (dl_dy, x, y) -> dl_dx


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu_backward(dl_dy, x, y):
    s = sigmoid(x)
    return dl_dy * (s + y * (1 - s))


def squareplus_backward(dl_dy, x, y):
    square = 100 * y * y
    return dl_dy * square / (square + 1)


ACTIVATIONS = {
    "None": (lambda x: x.copy(), lambda dl_dy, x, y: dl_dy.copy()),
    "ReLU": (lambda x: np.maximum(x, 0), lambda dl_dy, x, y: dl_dy * (y > 0)),
    "LeakyReLU": (
        lambda x: np.maximum(x, 0.01 * x),
        lambda dl_dy, x, y: np.where(y > 0, dl_dy, 0.01 * dl_dy),
    ),
    "SiLU": (lambda x: x * sigmoid(x), silu_backward),
    "Exponential": (np.exp, lambda dl_dy, x, y: dl_dy * y),
    "Sine": (np.sin, lambda dl_dy, x, y: dl_dy * np.cos(x)),
    "Sigmoid": (sigmoid, lambda dl_dy, x, y: dl_dy * y * (1 - y)),
    "Squareplus": (lambda x: (10 * x + np.sqrt(100 * x * x + 4)) / 20, squareplus_backward),
    "Softplus": (
        lambda x: np.logaddexp(10 * x, 0) / 10,
        lambda dl_dy, x, y: -dl_dy * np.expm1(-10 * y),
    ),
    "Tanh": (np.tanh, lambda dl_dy, x, y: dl_dy * (1 - y * y)),
}


# Losses: (prediction, target, pdf), each [n, 3] -> the sum of the values, and the gradient


def l1(p, t, pdf):
    d = p - t
    return (np.abs(d) / pdf).sum(), np.copysign(1 / pdf, d)


def l2(p, t, pdf):
    weighted = (p - t) / pdf
    return ((p - t) * weighted).sum(), 2 * weighted


def relative_l1(size, p, t, pdf):
    d, scale = p - t, 1 / ((size(p, t) + 0.01) * pdf)
    return (np.abs(d) * scale).sum(), np.copysign(scale, d)


def relative_l2(p, t, pdf):
    d = p - t
    weighted = d / ((p * p + 0.01) * pdf)
    return (d * weighted).sum(), 2 * weighted


def relative_l2_luminance(p, t, pdf):
    luminance = p @ np.array([0.299, 0.587, 0.114], p.dtype)
    d = p - t
    weighted = d / ((luminance * luminance + 0.01)[:, None] * pdf)
    return (d * weighted).sum(), 2 * weighted


def cross_entropy(p, t, pdf):
    weighted = -t / pdf
    return (weighted * np.log(p)).sum(), weighted / p


def variance(p, t, pdf):
    square = t * t / pdf
    return (square / p - square / pdf).sum(), -square / (p * p)


def huber(p, t, pdf):
    d = p - t
    slope = np.clip(d, -1, 1)
    return (slope * (d - 0.5 * slope) / pdf).sum(), slope / pdf


def log_l1(p, t, pdf):
    d = p - t
    size = np.abs(d)
    return (np.log1p(size) / pdf).sum(), np.copysign(1 / ((1 + size) * pdf), d)


# Optimizers: (weights, gradients, state, t, n_matrix_params), in place; state starts as {}. All
# gradients differ from zero.


def adam(w, g, state, t, n_matrix_params, rate=1e-3, beta1=0.9, beta2=0.999, l2_reg=1e-8):
    g = g.copy()
    g[:n_matrix_params] += l2_reg * w[:n_matrix_params]
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    g *= g
    g *= 1 - beta2
    v += g
    denominator = np.sqrt(v)
    denominator += 1e-8
    np.divide(m, denominator, out=denominator)
    denominator *= rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    w -= denominator


def sgd(w, g, state, t, n_matrix_params, rate=1e-3, l2_reg=1e-8):
    w -= rate * (g + l2_reg * w)


FORMULAS = {
    ("encoding", "Identity"): (identity, identity_gradient),
    ("encoding", "OneBlob"): (one_blob, one_blob_gradient),
    **{
        ("encoding", name): (partial(grid, kind), partial(grid_gradient, kind))
        for name, kind in (
            ("Grid", "Hash"), ("HashGrid", "Hash"), ("TiledGrid", "Tiled"), ("DenseGrid", "Dense"),
        )
    },
    **{("activation", name): pair for name, pair in ACTIVATIONS.items()},
    ("loss", "L1"): l1,
    ("loss", "L2"): l2,
    ("loss", "RelativeL1"): partial(relative_l1, lambda p, t: np.abs(p)),
    ("loss", "MAPE"): partial(relative_l1, lambda p, t: np.abs(t)),
    ("loss", "SMAPE"): partial(relative_l1, lambda p, t: 0.5 * (np.abs(p) + np.abs(t))),
    ("loss", "RelativeL2"): relative_l2,
    ("loss", "RelativeL2Luminance"): relative_l2_luminance,
    ("loss", "CrossEntropy"): cross_entropy,
    ("loss", "Variance"): variance,
    ("loss", "Huber"): huber,
    ("loss", "LogL1"): log_l1,
    ("optimizer", "Adam"): adam,
    ("optimizer", "SGD"): sgd,
}  # fmt: skip
