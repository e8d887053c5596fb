"""The formulas of the components as one writes them in NumPy: vectorised, in the input's dtype.

FORMULAS maps (kind, otype) to functions; cpu_components.py says what they are given. Nothing of
numbanet is used, so that they can judge it as well.
"""

import math
from functools import partial

import numpy as np

# Encodings: (x, params, config) -> features, and (x, params, config, dl_dy) -> the gradient of the
# parameters, or of x where there are none. x lies in the unit cube.


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


def frequency(x, params, config):
    angle = x[..., None] * (np.pi * 2.0 ** np.arange(12)).astype(x.dtype)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(x), -1)


def frequency_gradient(x, params, config, dl_dy):
    factor = (np.pi * 2.0 ** np.arange(12)).astype(x.dtype)
    angle = x[..., None] * factor
    rows = dl_dy.reshape(*angle.shape, 2)
    return (factor * (rows[..., 0] * np.cos(angle) - rows[..., 1] * np.sin(angle))).sum(axis=-1)


def periods(x):
    k = np.arange(12).astype(x.dtype)
    return x[..., None] * 2 ** (k - 1) + 0.25 * k


def triangle_wave(x, params, config):
    v = periods(x)
    return (4 * np.abs(v - np.floor(v) - 0.5) - 1).reshape(len(x), -1)


def triangle_wave_gradient(x, params, config, dl_dy):
    v = periods(x)
    slope = (2.0 ** (np.arange(12) + 1)).astype(x.dtype)
    rows = dl_dy.reshape(v.shape)
    return np.where(v - np.floor(v) < 0.5, -slope * rows, slope * rows).sum(axis=-1)


# Constants of the harmonics below degree 4, by which power of z or of x + iy they belong to.
SH = (
    0.28209479177387814, 0.48860251190291987, 1.0925484305920792, 0.94617469575755997,
    0.31539156525251999, 0.54627421529603959, 0.59004358992664352, 2.8906114426405538,
    0.45704579946446572, 0.3731763325901154, 1.4453057213202769,
)  # fmt: skip


def spherical_harmonics(x, params, config):
    x, y, z = 2 * x.T - 1
    xx, yy, zz, xy = x * x, y * y, z * z, x * y
    features = (
        np.full_like(x, SH[0]), -SH[1] * y, SH[1] * z, -SH[1] * x,
        SH[2] * xy, -SH[2] * y * z, SH[3] * zz - SH[4], -SH[2] * x * z, SH[5] * (xx - yy),
        SH[6] * y * (yy - 3 * xx), SH[7] * xy * z, SH[8] * y * (1 - 5 * zz),
        SH[9] * z * (5 * zz - 3), SH[8] * x * (1 - 5 * zz), SH[10] * z * (xx - yy),
        SH[6] * x * (3 * yy - xx),
    )  # fmt: skip
    return np.stack(features, axis=-1)


def spherical_harmonics_gradient(x, params, config, dl_dy):
    x, y, z = 2 * x.T - 1
    xx, yy, zz, xy, g = x * x, y * y, z * z, x * y, dl_dy.T
    along_x = (
        -SH[1] * g[3] + SH[2] * (y * g[4] - z * g[7]) + 2 * SH[5] * x * g[8]
        + SH[6] * (3 * (yy - xx) * g[15] - 6 * xy * g[9]) + SH[7] * y * z * g[10]
        + SH[8] * (1 - 5 * zz) * g[13] + 2 * SH[10] * x * z * g[14]
    )  # fmt: skip
    along_y = (
        -SH[1] * g[1] + SH[2] * (x * g[4] - z * g[5]) - 2 * SH[5] * y * g[8]
        + SH[6] * (3 * (yy - xx) * g[9] + 6 * xy * g[15]) + SH[7] * x * z * g[10]
        + SH[8] * (1 - 5 * zz) * g[11] - 2 * SH[10] * y * z * g[14]
    )  # fmt: skip
    along_z = (
        SH[1] * g[2] - SH[2] * (y * g[5] + x * g[7]) + 2 * SH[3] * z * g[6]
        + SH[7] * xy * g[10] - 10 * SH[8] * z * (y * g[11] + x * g[13])
        + SH[9] * (15 * zz - 3) * g[12] + SH[10] * (xx - yy) * g[14]
    )  # fmt: skip
    return 2 * np.stack([along_x, along_y, along_z], axis=-1)


def composite_parts(config):
    """The formulas, config, inputs and features of each nested encoding."""
    dim = column = 0
    for nested in config["nested"]:
        n_dims = nested["n_dims_to_encode"]
        width = {"TriangleWave": 12, "OneBlob": nested.get("n_bins", 16), "Identity": 1}
        end = column + n_dims * width[nested["otype"]]
        formulas = FORMULAS["encoding", nested["otype"]]
        yield formulas, nested, slice(dim, dim + n_dims), slice(column, end)
        dim, column = dim + n_dims, end


def composite(x, params, config):
    parts = composite_parts(config)
    return np.hstack([value(x[:, dims], params, own) for (value, _), own, dims, _ in parts])


def composite_gradient(x, params, config, dl_dy):
    return np.hstack(
        [
            gradient(x[:, dims], params, own, dl_dy[:, columns])
            for (_, gradient), own, dims, columns in composite_parts(config)
        ]
    )


NRC = {
    "nested": [
        {"otype": "TriangleWave", "n_dims_to_encode": 3},
        {"otype": "OneBlob", "n_dims_to_encode": 5, "n_bins": 4},
        {"otype": "Identity", "n_dims_to_encode": 1},
    ]
}


def one_blob_frequency(x, params, config):
    return composite(x, params, NRC)


def one_blob_frequency_gradient(x, params, config, dl_dy):
    return composite_gradient(x, params, NRC, dl_dy)


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


# Optimizers: (weights, gradients, state, t, n_matrix_params), in place; state starts as {}, and
# gets the weights for inference, where they are others. There is one matrix, and all gradients
# differ from zero.


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


def novograd(w, g, state, t, n_matrix_params, rate=1e-3, beta1=0.9, beta2=0.999):
    beta1, beta2 = (0, 0) if t == 1 else (beta1, beta2)
    m, v = state.setdefault("m", np.zeros_like(w)), state.setdefault("v", np.zeros(2))
    for k, part in enumerate((slice(n_matrix_params), slice(n_matrix_params, None))):
        v[k] = beta2 * v[k] + (1 - beta2) * np.vdot(g[part], g[part])
        m[part] *= beta1
        m[part] += float((1 - beta1) / (math.sqrt(v[k]) + 1e-8)) * g[part]
        w[part] -= rate * m[part]


def shampoo(w, g, state, t, n_matrix_params, rate=1e-3, l2_reg=1e-5, identity=0.01):
    """Shampoo for one square matrix and a rest."""

    def average(name, beta, value, t=t):  # without the bias of an average that begins at zero
        keep = beta * (1 - beta ** (t - 1)) / (1 - beta**t)
        mean = state.setdefault(name, np.zeros_like(value))
        mean *= keep
        mean += (1 - keep) * value
        return mean

    def inverse_root(covariance):
        n = len(covariance)
        values, vectors = np.linalg.eigh((1 - identity) * covariance + identity * np.eye(n))
        return ((vectors * values**-0.25) @ vectors.T).astype(w.dtype)

    g = g + l2_reg * w
    m = average("m1", 0.9, g) / (np.sqrt(average("m2", 0.99, g * g)) + 1e-8)
    w[n_matrix_params:] -= rate * m[n_matrix_params:]
    m = m[:n_matrix_params].reshape(math.isqrt(n_matrix_params), -1)
    left, right = average("left", 0.9, m @ m.T), average("right", 0.9, m.T @ m)
    if t == 1 or t % (10 if t < 100 else 200) == 0:
        state["roots"] = inverse_root(left), inverse_root(right)
    if t > 1:
        s = average("s", 0.9, state["roots"][0] @ m @ state["roots"][1], t - 1)
        w[:n_matrix_params] -= rate * np.linalg.norm(m) / np.linalg.norm(s) * s.reshape(-1)


def ema(w, g, state, t, n_matrix_params, decay=0.99):
    adam(w, g, state, t, n_matrix_params)
    average = state.setdefault("inference", np.zeros_like(w))
    average *= decay * (1 - decay ** (t - 1)) / (1 - decay**t)
    average += (1 - decay) / (1 - decay**t) * w


def average(w, g, state, t, n_matrix_params, n_samples=8):
    adam(w, g, state, t, n_matrix_params)
    samples = state.setdefault("samples", np.zeros((n_samples, w.size), w.dtype))
    samples[t % n_samples] = w
    state["inference"] = samples.sum(axis=0) / min(t, n_samples)


def batched(w, g, state, t, n_matrix_params, multiplier=16):
    total = state.setdefault("total", np.zeros_like(w))
    total += g
    if t % multiplier == 0:
        total /= multiplier
        adam(w, total, state, t // multiplier, n_matrix_params)
        total[:] = 0


def lookahead(w, g, state, t, n_matrix_params, alpha=0.5, n_steps=16):
    slow = state.setdefault("inference", w.copy())
    if (t - 1) % n_steps == 0:
        slow *= 1 - alpha
        slow += alpha * w
        w[:] = slow
    adam(w, g, state, t, n_matrix_params)


def composite_optimizer(w, g, state, t, n_matrix_params):
    sgd(w[:n_matrix_params], g[:n_matrix_params], state, t, n_matrix_params)
    adam(w[n_matrix_params:], g[n_matrix_params:], state, t, 0)


FORMULAS = {
    ("encoding", "Identity"): (identity, identity_gradient),
    ("encoding", "OneBlob"): (one_blob, one_blob_gradient),
    ("encoding", "Frequency"): (frequency, frequency_gradient),
    ("encoding", "TriangleWave"): (triangle_wave, triangle_wave_gradient),
    ("encoding", "SphericalHarmonics"): (spherical_harmonics, spherical_harmonics_gradient),
    ("encoding", "Composite"): (composite, composite_gradient),
    ("encoding", "OneBlobFrequency"): (one_blob_frequency, one_blob_frequency_gradient),
    ("encoding", "NRC"): (one_blob_frequency, one_blob_frequency_gradient),
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
    ("optimizer", "Novograd"): novograd,
    ("optimizer", "Shampoo"): shampoo,
    ("optimizer", "EMA"): ema,
    ("optimizer", "ExponentialDecay"): adam,  # whose learning rate has not decayed yet
    ("optimizer", "Average"): average,
    ("optimizer", "Batched"): batched,
    ("optimizer", "Lookahead"): lookahead,
    ("optimizer", "Composite"): composite_optimizer,
}  # fmt: skip
