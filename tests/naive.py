"""Slow twins of everything in numbanet, in float64 NumPy and written from the formulas.

Nothing is imported from numbanet: an oracle that shares code is none. Batches are [n, dims], params
are flat vectors, and every class takes the JSON options of its config as keyword arguments.
"""

import functools
import itertools
import math

import numpy as np
from naive_losses import LOSSES
from naive_optimizers import optimizer

UINT32 = 0xFFFFFFFF
UINT64 = 0xFFFFFFFFFFFFFFFF


# Random numbers: pcg32 (O'Neill 2014, XSH-RR 64/32) and the seed sequence of C++.


class PCG32:
    MULTIPLIER = 0x5851F42D4C957F2D

    def __init__(self, seed, sequence=1):
        self.state = 0
        self.increment = (sequence << 1) | 1
        self.next_uint()
        self.state = (self.state + seed) & UINT64
        self.next_uint()

    def next_uint(self):
        old = self.state
        self.state = (old * self.MULTIPLIER + self.increment) & UINT64
        shifted = (((old >> 18) ^ old) >> 27) & UINT32
        turn = old >> 59
        return ((shifted >> turn) | (shifted << (-turn & 31))) & UINT32

    def next_float(self):
        return (self.next_uint() >> 9) * 2.0**-23

    def advance(self, n):
        """Skip n draws by squaring the affine map state -> a state + c."""
        a, c = self.MULTIPLIER, self.increment
        while n:
            if n & 1:
                self.state = (self.state * a + c) & UINT64
            a, c = a * a & UINT64, (a + 1) * c & UINT64
            n >>= 1

    def uniform(self, n):
        return np.array([self.next_float() for _ in range(n)])


def seed_sequence(seed, n_words=2):
    """std::seed_seq{seed}.generate of n_words < 7 words, as the C++ standard spells it out."""
    words = [0x8B8B8B8B] * n_words
    shift = n_words // 2

    def mix(x):
        return x ^ (x >> 27)

    n_rounds = max(2, n_words)
    for k in range(n_rounds):
        here, there, before = k % n_words, (k + shift) % n_words, (k - 1) % n_words
        r1 = 1664525 * mix(words[here] ^ words[there] ^ words[before]) & UINT32
        r2 = (r1 + (1, k % n_words + seed, k % n_words)[min(k, 2)]) & UINT32
        words[there] = (words[there] + r1) & UINT32
        words[there] = (words[there] + r2) & UINT32
        words[here] = r2
    for k in range(n_rounds, n_rounds + n_words):
        here, there, before = k % n_words, (k + shift) % n_words, (k - 1) % n_words
        r3 = 1566083941 * mix((words[here] + words[there] + words[before]) & UINT32) & UINT32
        r4 = (r3 - k % n_words) & UINT32
        words[there] ^= r3
        words[there] ^= r4
        words[here] = r4
    return words


def make_rng(seed, convention):
    return PCG32({"bindings": seed, "trainer": seed_sequence(seed)[0]}[convention])


def strided_uniform(rng, n, low, high):
    """The device fill: thread t makes draws 4t..4t+3 and stores draw 4t+j at t + n_threads*j."""
    n_threads = 128 * math.ceil(math.ceil(n / 4) / 128)
    after = PCG32(0)
    after.state, after.increment = rng.state, rng.increment
    after.advance(n)
    values = np.full(4 * n_threads, np.nan)
    for t in range(min(n, n_threads)):
        for j in range(4):
            values[t + n_threads * j] = rng.next_float()
    rng.state = after.state
    return values[:n] * (high - low) + low


# Encodings. Each gives its values, its Jacobian dy_k/dx_d and its Hessian d2y_k/dx_d dx_e; all
# gradients follow from these.


class Encoding:
    padding = 1.0
    padding_first = False
    alignment = 1
    n_params = 0

    def padded(self, n_columns):
        return self if n_columns == self.n_outputs else Padded(self, n_columns)

    def initial_params(self, rng):
        return np.zeros(0)

    def backward_input(self, x, params, dl_dy):
        return np.einsum("nk,nkd->nd", dl_dy, self.jacobian(x, params))

    def backward_params(self, x, params, dl_dy):
        return np.zeros(0)

    def double_backward(self, x, params, dl_dy, dl_ddx):
        """dL/d(dl_dy), dL/dx and dL/dparams of L = sum(dl_ddx * backward_input)."""
        dl_ddy = np.einsum("nkd,nd->nk", self.jacobian(x, params), dl_ddx)
        dl_dx = np.einsum("nk,nkde,nd->ne", dl_dy, self.hessian(x, params), dl_ddx)
        return dl_ddy, dl_dx, self.double_backward_params(x, params, dl_dy, dl_ddx)

    def double_backward_params(self, x, params, dl_dy, dl_ddx):
        return np.zeros(0)

    def distance_to_border(self, x):
        """Distance of each x, in cells, from where values or derivatives may jump."""
        return np.full(x.shape, np.inf)


class Padded(Encoding):
    """An encoding with constant columns, which have no gradient, after or before its own."""

    def __init__(self, encoding, n_columns):
        self.encoding, self.n_outputs = encoding, n_columns
        self.n_dims, self.n_params = encoding.n_dims, encoding.n_params
        first = n_columns - encoding.n_outputs if encoding.padding_first else 0
        self.columns = slice(first, first + encoding.n_outputs)
        if hasattr(encoding, "scales"):
            self.scales = encoding.scales
        self.initial_params = encoding.initial_params
        self.distance_to_border = encoding.distance_to_border

    def among(self, values, fill):
        full = np.full((len(values), self.n_outputs, *values.shape[2:]), float(fill))
        full[:, self.columns] = values
        return full

    def forward(self, x, params):
        return self.among(self.encoding.forward(x, params), self.encoding.padding)

    def jacobian(self, x, params):
        return self.among(self.encoding.jacobian(x, params), 0)

    def hessian(self, x, params):
        return self.among(self.encoding.hessian(x, params), 0)

    def backward_params(self, x, params, dl_dy):
        return self.encoding.backward_params(x, params, dl_dy[:, self.columns])

    def double_backward_params(self, x, params, dl_dy, dl_ddx):
        return self.encoding.double_backward_params(x, params, dl_dy[:, self.columns], dl_ddx)


class Identity(Encoding):
    def __init__(self, n_dims, scale=1.0, offset=0.0):
        self.n_dims = self.n_outputs = n_dims
        self.scale, self.offset = scale, offset

    def forward(self, x, params):
        return x * self.scale + self.offset

    def jacobian(self, x, params):
        return np.tile(self.scale * np.eye(self.n_dims), (len(x), 1, 1))

    def hessian(self, x, params):
        return np.zeros((len(x), self.n_dims, self.n_dims, self.n_dims))


class OneBlob(Encoding):
    """Mueller et al. 2019: a blob around x, integrated over the bins of a ring of length 1."""

    def __init__(self, n_dims, n_bins=16):
        self.n_dims, self.n_bins = n_dims, n_bins
        self.n_outputs = n_dims * n_bins

    def per_bin(self, x, function):
        """Difference of the wrapped function at the two edges of each bin: [n, dim, bin]."""
        edges = np.arange(self.n_bins + 1) / self.n_bins
        t = edges - x[:, :, None]
        left_of = sum(function(self.n_bins * (t + turn)) for turn in (-1, 0, 1))
        return left_of[:, :, 1:] - left_of[:, :, :-1]

    def spread(self, per_bin, order):
        """[n, dim, bin] -> [n, dim*bin, dim, ... dim], nonzero where all dims are the same."""
        n = len(per_bin)
        full = np.zeros((n, self.n_dims, self.n_bins) + (self.n_dims,) * order)
        for d in range(self.n_dims):
            full[(slice(None), d, slice(None)) + (d,) * order] = per_bin[:, d]
        return full.reshape(n, self.n_outputs, *(self.n_dims,) * order)

    def forward(self, x, params):
        def cumulative(u):
            u = np.clip(u, -1, 1)
            return 15 / 16 * u * (1 - 2 / 3 * u**2 + 1 / 5 * u**4) + 1 / 2

        return self.spread(self.per_bin(x, cumulative), 0)

    def jacobian(self, x, params):
        def density(u):
            return -self.n_bins * 15 / 16 * np.maximum(1 - u**2, 0) ** 2

        return self.spread(self.per_bin(x, density), 1)

    def hessian(self, x, params):
        def slope(u):
            return self.n_bins**2 * 15 / 16 * np.maximum(1 - u**2, 0) * -4 * u

        return self.spread(self.per_bin(x, slope), 2)


PRIMES = (1958374283, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)


def xor_of_products(cell, primes):
    result = 0
    for c, prime in zip(cell, primes, strict=False):
        result ^= c * prime & UINT32
    return result


def rng_hash(cell):
    n_bits = 64 // len(cell)
    step = 0
    for d, c in enumerate(cell):
        step ^= c << (d * n_bits) & UINT64
    rng = PCG32(1337)
    rng.advance(step)
    return rng.next_uint()


def base_convert_hash(cell):
    result = 0
    for c in cell:
        result = (result + c) * 2531011 & UINT32
    return result


HASHES = {
    "coherentprime": lambda cell: xor_of_products(cell, (1, *PRIMES[1:])),
    "prime": lambda cell: xor_of_products(cell, PRIMES),
    "reversedprime": lambda cell: xor_of_products(cell, PRIMES[::-1]),
    "rng": rng_hash,
    "baseconvert": base_convert_hash,
}

# blend(t), its first and its second derivative
BLENDS = {
    "linear": (lambda t: t, np.ones_like, np.zeros_like),
    "smoothstep": (
        lambda t: t**2 * (3 - 2 * t),
        lambda t: 6 * t * (1 - t),
        lambda t: 6 - 12 * t,
    ),
    "nearest": (np.zeros_like,) * 3,  # always the lower corner
}


class Grid(Encoding):
    """Mueller et al. 2022: features at the vertices of grids from coarse to fine."""

    padding = 0.0

    def __init__(
        self,
        n_dims,
        type="Hash",
        n_levels=16,
        n_features_per_level=2,
        n_features=None,
        log2_hashmap_size=19,
        base_resolution=16,
        per_level_scale=None,
        interpolation="Linear",
        hash="CoherentPrime",
        resolutions=None,
        initial_range=1e-4,
    ):
        self.initial_range = initial_range
        if resolutions is not None:
            n_levels = len(resolutions)
        if n_features is not None:
            n_levels = n_features // n_features_per_level
        self.n_dims, self.n_levels, self.n_features = n_dims, n_levels, n_features_per_level
        self.alignment = n_features_per_level
        self.type = type.lower()
        if per_level_scale is None:
            per_level_scale = 2.0
            if self.type == "dense" and n_levels > 1:
                log_growth = np.float32(math.log(256 / base_resolution)) / np.float32(n_levels - 1)
                per_level_scale = np.float32(math.exp(log_growth))
        self.hash = HASHES[hash.lower()]
        self.blend = BLENDS[interpolation.lower()]
        self.along_axes, self.resolutions, self.entries = [], [], []
        for level in range(n_levels):  # scales are float32 by definition: they decide table sizes
            log2_scale = np.log2(np.float32(per_level_scale))
            growth = np.exp2(np.float32(level) * log2_scale)
            scale = growth * np.float32(base_resolution) - np.float32(1)
            if resolutions is not None:
                scale = np.float32(np.array(resolutions[level]) - 1)
            scale = np.broadcast_to(scale, n_dims).astype(np.float64)
            shape = [math.ceil(each) + 1 for each in scale]
            n = 8 * math.ceil(min(math.prod(shape), 2**31 - 1) / 8)
            if self.type in ("tiled", "tile"):
                n = min(n, base_resolution**n_dims)
            if self.type == "hash":
                n = min(n, 2**log2_hashmap_size)
            self.along_axes.append(scale)
            self.resolutions.append(shape)
            self.entries.append(n)
        self.scales = np.ravel(self.along_axes).tolist()
        self.first_entries = np.concatenate([[0], np.cumsum(self.entries)])
        self.n_outputs = n_levels * self.n_features
        self.n_params = int(self.first_entries[-1]) * self.n_features

    def initial_params(self, rng):
        return strided_uniform(rng, self.n_params, -self.initial_range, self.initial_range)

    def entries_of(self, vertices, level):
        """The table entries of vertices [n, n_dims], counted from the start of all tables."""
        shape, n_entries = self.resolutions[level], self.entries[level]
        stride = math.prod(shape)
        if self.type == "hash" and n_entries < stride:
            if self.hash is rng_hash:
                index = np.array([self.hash(cell) for cell in vertices.tolist()], np.uint64)
            else:  # 64 bits hold the product of two numbers of 32
                index = self.hash(vertices.astype(np.uint64).T)
        else:
            columns = vertices.astype(np.uint64 if stride <= UINT32 else object).T
            index = sum(c * math.prod(shape[:d]) for d, c in enumerate(columns))
            if stride <= UINT32:
                index &= UINT32
        return int(self.first_entries[level]) + (index % n_entries).astype(np.int64)

    def distance_to_border(self, x):
        distances = []
        for scale in self.along_axes:
            p = x * scale + 0.5
            distances.append(np.abs(p - np.round(p)))
        return np.min(distances, axis=0)

    def corners(self, x, level):
        """For each corner of the cells of x: its entry [n], and its weight's derivatives.

        The weight is [n], its gradient with respect to x [n, d], its Hessian [n, d, d].
        """
        scale, n_dims = self.along_axes[level], self.n_dims
        p = x * scale + 0.5
        t = p - np.floor(p)
        cells = np.floor(p).astype(np.int64)
        value, slope, curvature = (function(t) for function in self.blend)
        for corner in itertools.product((0, 1), repeat=n_dims):
            sign = 2 * np.array(corner) - 1
            factor = [
                np.where(corner, value, 1 - value),
                sign * slope * scale,
                sign * curvature * scale**2,
            ]
            gradient = np.empty((len(x), n_dims))
            hessian = np.empty((len(x), n_dims, n_dims))
            for d in range(n_dims):
                gradient[:, d] = product_with_orders(factor, (d,))
                for e in range(n_dims):
                    hessian[:, d, e] = product_with_orders(factor, (d, e))
            vertex = (cells + np.array(corner)) & UINT32
            entries = self.entries_of(vertex, level)
            yield entries, product_with_orders(factor, ()), gradient, hessian

    def interpolate(self, x, params, order):
        """The derivatives of the given order of all features."""
        table = np.asarray(params, np.float64).reshape(-1, self.n_features)
        result = np.zeros((len(x), self.n_levels, self.n_features) + (self.n_dims,) * order)
        for level in range(self.n_levels):
            for entries, *weights in self.corners(x, level):
                features = table[entries].reshape(len(x), self.n_features, *(1,) * order)
                result[:, level] += features * weights[order][:, None]
        return result.reshape(len(x), self.n_outputs, *(self.n_dims,) * order)

    def forward(self, x, params):
        return self.interpolate(x, params, 0)

    def jacobian(self, x, params):
        return self.interpolate(x, params, 1)

    def hessian(self, x, params):
        return self.interpolate(x, params, 2)

    def scatter(self, x, dl_dy, dl_dweight):
        """Sum over samples of dl_dy times what `dl_dweight` makes of each corner's weight."""
        table = np.zeros((self.n_params // self.n_features, self.n_features))
        dl_dy = dl_dy.reshape(len(x), self.n_levels, self.n_features)
        for level in range(self.n_levels):
            for entries, weight, gradient, _ in self.corners(x, level):
                share = dl_dweight(weight, gradient)
                np.add.at(table, entries, dl_dy[:, level] * share[:, None])
        return table.ravel()

    def backward_params(self, x, params, dl_dy):
        return self.scatter(x, dl_dy, lambda weight, gradient: weight)

    def double_backward_params(self, x, params, dl_dy, dl_ddx):
        return self.scatter(x, dl_dy, lambda weight, gradient: np.sum(gradient * dl_ddx, axis=1))


def product_with_orders(factor, derived):
    """Product over dims of factor[number of times that the dim is in `derived`][:, dim]."""
    result = 1.0
    for d in range(factor[0].shape[1]):
        result = result * factor[derived.count(d)][:, d]
    return result


def hash_grid(n_dims, **options):
    return Grid(n_dims, **{"type": "Hash", **options})


def tiled_grid(n_dims, **options):
    return Grid(n_dims, **{"type": "Tiled", **options})


def dense_grid(n_dims, **options):
    return Grid(n_dims, **{"type": "Dense", **options})


ENCODINGS = {
    "identity": Identity,
    "oneblob": OneBlob,
    "grid": Grid,
    "hashgrid": hash_grid,
    "tiledgrid": tiled_grid,
    "densegrid": dense_grid,
}


def encoding(config, n_dims):
    from naive_encodings import ENCODINGS as OTHERS  # their twins derive from those above

    ranges = ("n_dims_to_encode", "dims_to_encode_begin")  # of encodings within a Composite
    options = {key: value for key, value in config.items() if key not in ("otype", *ranges)}
    return (ENCODINGS | OTHERS)[config.get("otype", "OneBlob").lower()](n_dims, **options)


# Activations and the perceptron


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


# name -> (value, derivative), both of the pre-activation
ACTIVATIONS = {
    "None": (lambda x: x, np.ones_like),
    "ReLU": (lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "LeakyReLU": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1.0, 0.01)),
    "SiLU": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x)),
    ),
    "Exponential": (np.exp, np.exp),
    "Sine": (np.sin, np.cos),
    "Sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "Squareplus": (
        lambda x: (10 * x + np.sqrt((10 * x) ** 2 + 4)) / 20,
        lambda x: 0.5 * (1 + 10 * x / np.sqrt((10 * x) ** 2 + 4)),
    ),
    "Softplus": (lambda x: np.logaddexp(10 * x, 0) / 10, lambda x: sigmoid(10 * x)),
    "Tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}


# The derivative of the derivative, both of the pre-activation
SECOND_DERIVATIVES = {
    "None": np.zeros_like,
    "ReLU": np.zeros_like,
    "LeakyReLU": np.zeros_like,
    "SiLU": lambda x: sigmoid(x) * sigmoid(-x) * (2 - x * np.tanh(x / 2)),
    "Exponential": np.exp,
    "Sine": lambda x: -np.sin(x),
    "Sigmoid": lambda x: -sigmoid(x) * sigmoid(-x) * np.tanh(x / 2),
    "Squareplus": lambda x: 20 / ((10 * x) ** 2 + 4) ** 1.5,
    "Softplus": lambda x: 10 * sigmoid(10 * x) * sigmoid(-10 * x),
    "Tanh": lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
}


def activation(name):
    return {key.lower(): pair for key, pair in ACTIVATIONS.items()}[name.lower()]


def second_derivative(name):
    return {key.lower(): value for key, value in SECOND_DERIVATIVES.items()}[name.lower()]


def next_multiple(n, divisor):
    return divisor * math.ceil(n / divisor)


class MLP:
    """y = W x + b between activations; W[o*fan_in + i] in one flat vector, then all biases."""

    def __init__(
        self,
        n_input_dims,
        n_output_dims,
        n_neurons=128,
        n_hidden_layers=5,
        activation="ReLU",
        output_activation="None",
        bias=False,
        siren_omega=30,
        siren_first_scale=1,
    ):
        self.first_scale = siren_omega * siren_first_scale
        widths = [n_input_dims] + [n_neurons] * n_hidden_layers + [next_multiple(n_output_dims, 16)]
        self.n_output_dims = n_output_dims
        self.shapes = [(widths[k + 1], widths[k]) for k in range(len(widths) - 1)]
        self.n_weights = sum(rows * columns for rows, columns in self.shapes)
        self.bias, self.n_params = bias, self.n_weights + bias * sum(widths[1:])
        self.activations = [activation] * n_hidden_layers + [output_activation]
        self.is_sine = activation.lower() == "sine"

    def matrices(self, params):
        """Views of a flat vector."""
        matrices, first = [], 0
        for rows, columns in self.shapes:
            matrices.append(params[first : first + rows * columns].reshape(rows, columns))
            first += rows * columns
        return matrices

    def biases(self, params):
        """Views of a flat vector; zeros where the layers have none."""
        ends = np.cumsum([self.n_weights] + [rows for rows, _ in self.shapes])
        if not self.bias:
            return [np.zeros(rows) for rows, _ in self.shapes]
        return [params[first:end] for first, end in itertools.pairwise(ends)]

    def initial_params(self, rng):
        values, biases, bounds = [], [], []
        for k, (fan_out, fan_in) in enumerate(self.shapes):
            bound = math.sqrt(6 / (fan_in + fan_out))
            if self.is_sine:
                bound = self.first_scale / fan_in if k == 0 else math.sqrt(6 / fan_in)
            values.append((2 * rng.uniform(fan_out * fan_in) - 1) * bound)
            bounds.append(bound)
        for (fan_out, _), bound in zip(self.shapes, bounds, strict=True):
            if self.bias:
                is_drawn = self.is_sine
                drawn = (2 * rng.uniform(fan_out) - 1) * bound if is_drawn else np.zeros(fan_out)
                biases.append(drawn)
        return np.concatenate(values + biases)

    def layers(self, x, params):
        """The input of each matrix, the pre-activation after it, and the padded output."""
        inputs, before = [x], []
        layers = zip(self.matrices(params), self.biases(params), self.activations, strict=True)
        for matrix, bias, name in layers:
            before.append(inputs[-1] @ matrix.T + bias)
            inputs.append(activation(name)[0](before[-1]))
        return inputs, before

    def forward(self, x, params):
        return self.layers(x, params)[0][-1][:, : self.n_output_dims]

    def backward(self, x, params, dl_dy):
        """dL/dx and dL/dparams."""
        inputs, before = self.layers(x, params)
        gradient = np.zeros_like(before[-1])
        gradient[:, : self.n_output_dims] = dl_dy
        dl_dparams = np.zeros(self.n_params)
        matrices, dl_dmatrices = self.matrices(params), self.matrices(dl_dparams)
        dl_dbiases = self.biases(dl_dparams)
        for k in reversed(range(len(matrices))):
            gradient = gradient * activation(self.activations[k])[1](before[k])
            dl_dmatrices[k][:] = gradient.T @ inputs[k]
            dl_dbiases[k][:] = gradient.sum(axis=0)
            gradient = gradient @ matrices[k]
        return gradient, dl_dparams

    def double_backward(self, x, dx, params, dl_dy):
        """Of the slope of dl_dy * forward along dx: its gradients.

        With respect to dl_dy, x, dx and the params. Layer k computes y_k = f(z_k), z_k = W_k x_k,
        and along dx that is dy_k = f'(z_k) dz_k, dz_k = W_k dx_k; u and r are the gradients of
        dy_k and y_k.
        """
        inputs, before = self.layers(x, params)
        matrices, dl_dparams = self.matrices(params), np.zeros(self.n_params)
        along, along_before = [dx], []
        for matrix, z, name in zip(matrices, before, self.activations, strict=True):
            along_before.append(along[-1] @ matrix.T)
            along.append(activation(name)[1](z) * along_before[-1])
        u, r = np.zeros_like(along[-1]), np.zeros_like(along[-1])
        dl_dbiases = self.biases(dl_dparams)
        u[:, : self.n_output_dims] = dl_dy
        for k, dl_dmatrix in reversed(list(enumerate(self.matrices(dl_dparams)))):
            slope = activation(self.activations[k])[1](before[k])
            bend = second_derivative(self.activations[k])(before[k])
            g, h = slope * u, slope * r + bend * along_before[k] * u
            dl_dmatrix[:] = h.T @ inputs[k] + g.T @ along[k]
            dl_dbiases[k][:] = h.sum(axis=0)
            u, r = g @ matrices[k], h @ matrices[k]
        return along[-1][:, : self.n_output_dims], r, u, dl_dparams


def loss(config):
    """(predictions, targets, densities) -> value and gradient of each element."""
    options = {key: value for key, value in config.items() if key != "otype"}
    return functools.partial(LOSSES[config.get("otype", "RelativeL2").lower()], **options)


# Model and training


class Model:
    """An encoding padded to a multiple of 16, then a perceptron; the perceptron's params first."""

    def __init__(self, n_input_dims, n_output_dims, config):
        features = encoding(config.get("encoding", {}), n_input_dims)
        self.encoding = features.padded(next_multiple(features.n_outputs, 16))
        network = {key: value for key, value in config.get("network", {}).items() if key != "otype"}
        self.mlp = MLP(self.encoding.n_outputs, n_output_dims, **network)
        self.n_params = self.mlp.n_params + self.encoding.n_params

    def initial_params(self, seed, convention="bindings"):
        rng = make_rng(seed, convention)
        network = self.mlp.initial_params(rng)
        return np.concatenate([network, self.encoding.initial_params(rng)])

    def split(self, params):
        params = np.asarray(params, np.float64)
        return params[: self.mlp.n_params], params[self.mlp.n_params :]

    def inference(self, x, params):
        weights, table = self.split(params)
        return self.mlp.forward(self.encoding.forward(np.asarray(x, np.float64), table), weights)

    def backward(self, x, params, dl_dy):
        """dL/dx and dL/dparams."""
        x = np.asarray(x, np.float64)
        weights, table = self.split(params)
        features = self.encoding.forward(x, table)
        dl_dfeatures, dl_dweights = self.mlp.backward(features, weights, dl_dy)
        dl_dtable = self.encoding.backward_params(x, table, dl_dfeatures)
        dl_dx = self.encoding.backward_input(x, table, dl_dfeatures)
        return dl_dx, np.concatenate([dl_dweights, dl_dtable])

    def double_backward(self, x, params, dl_dy, dl_ddx):
        """dL/d(dl_dy), dL/dx and dL/dparams of L = sum(dl_ddx * the dL/dx of backward)."""
        x = np.asarray(x, np.float64)
        weights, table = self.split(params)
        features = self.encoding.forward(x, table)
        along = np.einsum("nkd,nd->nk", self.encoding.jacobian(x, table), dl_ddx)
        dl_ddy, dl_dfeatures, dl_dalong, dl_dweights = self.mlp.double_backward(
            features, along, weights, dl_dy
        )
        _, dl_dx, dl_dtable = self.encoding.double_backward(x, table, dl_dalong, dl_ddx)
        dl_dx += self.encoding.backward_input(x, table, dl_dfeatures)
        dl_dtable += self.encoding.backward_params(x, table, dl_dfeatures)
        return dl_ddy, dl_dx, np.concatenate([dl_dweights, dl_dtable])

    def derivatives(self, x, params):
        """Outputs [n, k], their Jacobian [n, k, d] and their Hessian [n, k, d, e]."""
        x = np.asarray(x, np.float64)
        weights, table = self.split(params)
        features = self.encoding
        y = features.forward(x, table)
        first, second = features.jacobian(x, table), features.hessian(x, table)
        layers = self.mlp.matrices(weights), self.mlp.biases(weights), self.mlp.activations
        for matrix, bias, name in zip(*layers, strict=True):
            z = y @ matrix.T + bias
            first, second = (np.einsum("jk,nk...->nj...", matrix, each) for each in (first, second))
            value, slope = (function(z) for function in activation(name))
            bend = second_derivative(name)(z)[:, :, None, None]
            second = slope[:, :, None, None] * second
            second += bend * first[:, :, :, None] * first[:, :, None, :]
            y, first = value, slope[:, :, None] * first
        n_outputs = self.mlp.n_output_dims
        return y[:, :n_outputs], first[:, :n_outputs], second[:, :n_outputs]

    def input_gradient(self, dim, x, params):
        dl_dy = np.zeros((len(x), self.mlp.n_output_dims))
        dl_dy[:, dim] = 1
        return self.backward(x, params, dl_dy)[0]


class Trainer:
    """Loss, gradients and optimizer steps of a model from given weights."""

    def __init__(self, n_input_dims, n_output_dims, config, params):
        self.model = Model(n_input_dims, n_output_dims, config)
        self.params = np.array(params, np.float64)
        self.loss = loss(config.get("loss", {}))
        self.optimizer = optimizer(
            config.get("optimizer", {}), self.model.n_params, self.model.mlp.shapes
        )

    def loss_and_gradients(self, x, targets, pdf=None):
        """The loss, dL/dx and dL/dparams."""
        outputs = self.model.inference(x, self.params)
        targets = np.asarray(targets, np.float64)
        pdf = np.ones_like(targets) if pdf is None else np.asarray(pdf, np.float64)
        values, gradients = self.loss(outputs, targets, pdf)
        dl_dx, dl_dparams = self.model.backward(x, self.params, gradients / outputs.size)
        return values.sum() / outputs.size, dl_dx, dl_dparams

    def training_step(self, x, targets, pdf=None):
        loss, _, dl_dparams = self.loss_and_gradients(x, targets, pdf)
        self.params = self.optimizer.step(self.params, dl_dparams)
        return loss
