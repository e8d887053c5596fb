"""What must hold for every registered component; test_laws.py applies it to each of them.

A new component needs an entry in EXAMPLES below and a twin in naive.py.
"""

import contextlib
import functools

import numpy as np
from numba.core import event

from numbanet import registry

# Largest error, relative to the largest entry of the expected array: of values, and of first and
# second derivatives. One float32 operation errs by 6e-8.
TOLERANCE = {"value": 1e-5, "first": 3e-5, "second": 2e-4}
GUARD = np.float32(1.5e30)
SIZES = (0, 1, 31, 33, 257)

SMALL_GRID = {
    "otype": "Grid",
    "n_levels": 2,
    "n_features_per_level": 2,
    "log2_hashmap_size": 5,
    "base_resolution": 3,
    "per_level_scale": 2.0,
}

# (kind, otype) -> list of (config, sizes that the model derives)
EXAMPLES = {
    ("encoding", "Identity"): [
        ({}, {"n_dims": 3}),
        ({"scale": 2.5, "offset": -0.5}, {"n_dims": 1}),
    ],
    ("encoding", "OneBlob"): [
        ({}, {"n_dims": 2}),
        ({"n_bins": 64}, {"n_dims": 1}),
        ({"n_bins": 4}, {"n_dims": 5}),
    ],
    ("encoding", "Grid"): [
        (
            {"n_levels": 4, "log2_hashmap_size": 6, "base_resolution": 5, "per_level_scale": 1.5},
            {"n_dims": 2},
        ),
        (
            {
                "type": "Dense",
                "interpolation": "Smoothstep",
                "n_levels": 2,
                "n_features_per_level": 1,
                "base_resolution": 3,
                "per_level_scale": 2.0,
            },
            {"n_dims": 3},
        ),
        (
            {
                "type": "Tiled",
                "interpolation": "Nearest",
                "n_features": 8,
                "n_features_per_level": 4,
                "base_resolution": 5,
            },
            {"n_dims": 1},
        ),
        (
            {
                "hash": "Rng",
                "n_levels": 1,
                "n_features_per_level": 8,
                "log2_hashmap_size": 5,
                "base_resolution": 4,
            },
            {"n_dims": 4},
        ),
    ],
    ("encoding", "HashGrid"): [
        (
            {"n_levels": 3, "hash": "Prime", "log2_hashmap_size": 5, "base_resolution": 4},
            {"n_dims": 3},
        ),
    ],
    ("encoding", "TiledGrid"): [({"n_levels": 3, "base_resolution": 4}, {"n_dims": 2})],
    ("encoding", "DenseGrid"): [({"n_levels": 2, "base_resolution": 4}, {"n_dims": 2})],
    ("encoding", "Frequency"): [({}, {"n_dims": 3}), ({"n_frequencies": 1}, {"n_dims": 1})],
    ("encoding", "TriangleWave"): [({}, {"n_dims": 3}), ({"n_frequencies": 5}, {"n_dims": 1})],
    ("encoding", "SphericalHarmonics"): [
        ({}, {"n_dims": 3}),
        ({"degree": 8}, {"n_dims": 3}),
        ({"degree": 1}, {"n_dims": 3}),
    ],
    ("encoding", "Empty"): [({}, {"n_dims": 2})],
    ("encoding", "OneBlobFrequency"): [
        ({}, {"n_dims": 8}),
        ({"n_frequencies": 3, "n_bins": 2}, {"n_dims": 10}),
    ],
    ("encoding", "Composite"): [
        (
            {
                "nested": [
                    {"otype": "Frequency", "n_frequencies": 1, "n_dims_to_encode": 2},
                    {**SMALL_GRID, "n_features_per_level": 4, "n_dims_to_encode": 2},
                    {"otype": "SphericalHarmonics", "degree": 3},
                ]
            },
            {"n_dims": 7},
        ),
        (  # overlapping inputs, inputs that nobody reads, a Composite in a Composite
            {
                "nested": [
                    {
                        "otype": "Composite",
                        "nested": [
                            {**SMALL_GRID, "n_dims_to_encode": 1},
                            {"otype": "Empty", "n_dims_to_encode": 1},
                            {**SMALL_GRID, "interpolation": "Smoothstep"},
                        ],
                        "n_dims_to_encode": 3,
                        "dims_to_encode_begin": 1,
                    },
                    {"otype": "Identity", "n_dims_to_encode": 2, "dims_to_encode_begin": 2},
                ]
            },
            {"n_dims": 5},
        ),
        (
            {
                "nested": [
                    {**SMALL_GRID, "interpolation": "Smoothstep", "n_dims_to_encode": 2},
                    {"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 1},
                    {**SMALL_GRID, "n_levels": 1, "n_features_per_level": 4},
                ],
                "reduction": "Sum",
            },
            {"n_dims": 4},
        ),
        (
            {
                "nested": [
                    {**SMALL_GRID, "interpolation": "Smoothstep", "n_dims_to_encode": 2},
                    {"otype": "OneBlob", "n_bins": 2, "n_dims_to_encode": 2},
                    {**SMALL_GRID, "n_levels": 1, "n_features_per_level": 4},
                ],
                "reduction": "Product",
            },
            {"n_dims": 5},
        ),
    ],
    ("network", "FullyFusedMLP"): [
        ({"n_neurons": 16, "n_hidden_layers": 2}, {"n_input_dims": 16, "n_output_dims": 3}),
    ],
    ("network", "CutlassMLP"): [
        (
            {"n_neurons": 33, "n_hidden_layers": 2, "activation": "Softplus"},
            {"n_input_dims": 32, "n_output_dims": 17},
        ),
        (
            {"n_hidden_layers": 0, "output_activation": "Sigmoid"},
            {"n_input_dims": 16, "n_output_dims": 1},
        ),
        (
            {"n_neurons": 5, "n_hidden_layers": 1, "activation": "Sine"},
            {"n_input_dims": 16, "n_output_dims": 2},
        ),
    ],
    ("loss", "L1"): [({}, {})],
    ("loss", "L2"): [({}, {})],
    ("loss", "RelativeL2"): [({}, {})],
    ("optimizer", "Adam"): [
        ({}, {}),
        ({"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.8, "epsilon": 1e-15, "l2_reg": 0.1}, {}),
        ({"learning_rate": 0.01, "adabound": True}, {}),
        ({"learning_rate": 0.1, "relative_decay": 0.1, "absolute_decay": 0.05}, {}),
        (
            {
                "learning_rate": 0.1,
                "clipping_magnitude": 0.2,
                "gradient_clipping_magnitude": 0.3,
                "non_matrix_learning_rate_factor": 0.25,
                "non_matrix_l2_reg": 0.5,
                "skip_zero_grad_non_matrix_params": False,
            },
            {},
        ),
        ({"learning_rate": 0.1, "optimize_matrix_params": False}, {}),
        ({"learning_rate": 0.1, "optimize_non_matrix_params": False}, {}),
    ],
    ("optimizer", "SGD"): [({}, {}), ({"learning_rate": 0.5, "l2_reg": 0.25}, {})],
}

ALIASES = {
    ("encoding", "NRC"): "OneBlobFrequency",
    ("network", "MegakernelMLP"): "FullyFusedMLP",
    ("network", "MLP"): "CutlassMLP",
}


@contextlib.contextmanager
def compilations():
    """A list that holds, in the end, the names of the functions that were compiled."""
    names = []
    with event.install_recorder("numba:compile") as recorder:
        yield names
    names += [record.data["dispatcher"].py_func.__name__ for _, record in recorder.buffer]


@contextlib.contextmanager
def compiles_nothing():
    with compilations() as names:
        yield
    assert not names


def examples(kind):
    """(otype, config, derived sizes) for all components of a kind, aliases included."""
    found = []
    for name in registry.registered(kind):
        key = (kind, ALIASES.get((kind, name), name))
        for config, sizes in EXAMPLES.get(key, ()):
            found.append((name, config, sizes))
    return found


def missing(kind):
    """Registered names without an example."""
    return [
        name
        for name in registry.registered(kind)
        if (kind, ALIASES.get((kind, name), name)) not in EXAMPLES
    ]


def create(kind, otype, config, sizes):
    return registry.create(kind, {"otype": otype, **config}, default="none", **sizes)


def assert_close(actual, expected, tolerance):
    """Every error is within `tolerance` of the largest expected magnitude."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    if expected.size == 0:
        return
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(error), error.shape)
    bound = tolerance * max(np.abs(expected).max(), 1e-30)
    assert error[worst] <= bound, (
        f"at {worst}: got {actual[worst]}, expected {expected[worst]}, "
        f"error {error[worst]:.3g} > {bound:.3g}"
    )


def guarded(*shape):
    """An array of zeros inside a larger one of GUARD values, and the larger one."""
    whole = np.full([n + 2 for n in shape], GUARD, np.float32)
    inner = whole[(slice(1, -1),) * len(shape)]
    inner[...] = 0
    return inner, whole


def assert_guards_untouched(inner, whole):
    outside = np.ones(whole.shape, bool)
    outside[(slice(1, -1),) * whole.ndim] = False
    assert (whole[outside] == GUARD).all(), "wrote outside its buffer"
    assert (inner != GUARD).all(), "left a part of its buffer unwritten"


def inputs(twin, n, rng):
    """Float32 positions in and around [0, 1], where float32 and float64 see the same cell.

    Multiples of 1/8 stay even on cell borders if float32 computes their cells exactly.
    """
    exact = all(scale == int(scale) for scale in getattr(twin, "scales", ()))
    eighths = rng.integers(-4, 13, (2 * n + 8, twin.n_dims)) / 8
    eighths[:3] = [[0], [1], [0.5]]
    uniform = rng.uniform(-0.5, 1.5, (2 * n + 8, twin.n_dims))
    x = np.where(rng.random((2 * n + 8, 1)) < 0.3, eighths, uniform).astype(np.float32)
    is_clear = (twin.distance_to_border(x.astype(np.float64)) > 1e-3).all(axis=1)
    is_eighth = (x * 8 == np.round(x * 8)).all(axis=1)
    return np.ascontiguousarray(x[is_clear | (is_eighth & exact)][:n])


class EncodingData:
    """An encoding, its twin, and matching random arguments in float32."""

    def __init__(self, encoding, twin, n, seed=0):
        rng = np.random.default_rng(seed)
        self.encoding, self.twin = encoding, twin
        self.x = inputs(twin, n, rng)
        assert len(self.x) == n
        self.dl_dy = rng.normal(size=(n, twin.n_outputs)).astype(np.float32)
        self.dl_ddx = rng.normal(size=self.x.shape).astype(np.float32)
        whole = np.full(twin.n_params + 2, GUARD)
        whole[1:-1] = rng.normal(size=twin.n_params)
        self.params = whole[1:-1]

    def doubles(self):
        return tuple(
            array.astype(np.float64) for array in (self.x, self.params, self.dl_dy, self.dl_ddx)
        )

    def forward(self):
        y, whole = guarded(len(self.x), self.encoding.n_outputs)
        y[...] = GUARD
        self.encoding.forward_rows(self.x, 0, len(self.x), self.params, whole, 1, 1)
        assert_guards_untouched(y, whole)
        return y

    def per_sample(self, function, *widths):
        """Call function(i, *rows) for every sample; the rows are guarded outputs."""
        outputs = [np.empty((len(self.x), width), np.float32) for width in widths]
        for i in range(len(self.x)):
            buffers = [guarded(width) for width in widths]
            for inner, _ in buffers:
                inner[...] = GUARD
            function(i, *(inner for inner, _ in buffers))
            for output, (inner, whole) in zip(outputs, buffers, strict=True):
                assert_guards_untouched(inner, whole)
                output[i] = inner
        return outputs

    def backward_input(self):
        def one(i, dl_dx):
            self.encoding.backward_input(self.x[i], self.params, self.dl_dy[i], dl_dx)

        return self.per_sample(one, self.encoding.n_dims)[0]

    def double_backward_input(self):
        def one(i, dl_ddy, dl_dx):
            self.encoding.double_backward_input(
                self.x[i], self.params, self.dl_dy[i], self.dl_ddx[i], dl_ddy, dl_dx
            )

        return self.per_sample(one, self.encoding.n_outputs, self.encoding.n_dims)

    def partitions(self):
        """(partition, dL/dy of its features)."""
        for partition, (start, stop) in enumerate(self.encoding.partition_columns):
            yield partition, np.ascontiguousarray(self.dl_dy[:, start:stop])

    def backward_params(self):
        """The gradient of each partition on its own."""
        gradients = []
        for partition, dl_dy in self.partitions():
            inner, whole = guarded(self.encoding.n_params)
            self.encoding.backward_params_rows(partition, self.x, self.params, dl_dy, inner)
            assert_guards_untouched(inner, whole)
            gradients.append(inner)
        return gradients

    def backward_params_per_sample(self):
        inner, whole = guarded(self.encoding.n_params)
        for i in range(len(self.x)):
            self.encoding.backward_params(self.x[i], self.params, self.dl_dy[i], inner)
        assert_guards_untouched(inner, whole)
        return inner

    def double_backward_params(self):
        inner, whole = guarded(self.encoding.n_params)
        for partition, dl_dy in self.partitions():
            self.encoding.double_backward_params_rows(
                partition, self.x, self.params, dl_dy, self.dl_ddx, inner
            )
        assert_guards_untouched(inner, whole)
        return inner

    def assert_close(self, actual, expected, order):
        """Float32 places a sample in a lattice of n cells with an error that grows with n."""
        n_cells = max(getattr(self.twin, "scales", [1]))
        assert_close(actual, expected, TOLERANCE[order] * max(1, n_cells / 32))


@functools.cache
def step_of(optimizer, layout):
    return optimizer.step(layout)


def steps(optimizer, layout, weights, gradients):
    """Weights after each of the steps, and the state at the end."""
    weights = weights.astype(np.float32)
    state = np.zeros((optimizer.n_state, layout.n_params), np.float32)
    step = step_of(optimizer, layout)
    history = []
    for t, gradient in enumerate(gradients, start=1):
        scalars = np.array(optimizer.scalars(t), np.float32)
        assert len(scalars) == optimizer.n_scalars
        for i in range(layout.n_params):
            step(i, weights, gradient.astype(np.float32), state, scalars)
        history.append(weights.copy())
    return history, state
