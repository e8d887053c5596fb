"""What must hold for every registered component; test_laws.py applies it to each of them.

A new component needs an entry in EXAMPLES below and a twin in naive.py.
"""

import contextlib
import dataclasses
import functools

import numpy as np
from numba.core import event

from numbanet import registry
from numbanet.cpu import operations

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
FAST_ADAM = {"otype": "Adam", "learning_rate": 0.1}
FAST_NOVOGRAD = {"otype": "Novograd", "learning_rate": 0.1, "beta2": 0.5}
FAST_DECAY = {"decay_base": 0.5, "decay_start": 3, "decay_end": 9, "decay_interval": 2}
PARTS = [
    {"n_params_to_optimize": 40, "otype": "EMA", "decay": 0.5, "nested": FAST_NOVOGRAD},
    {"n_params_to_optimize": 7, "otype": "SGD", "learning_rate": 1e-3},
    {"n_params_to_optimize": 13, "otype": "Batched", "batch_size_multiplier": 2},
]

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
            {"resolutions": [5, 12, 3, 9], "log2_hashmap_size": 6, "initial_range": 0.5},
            {"n_dims": 2},
        ),
        (
            {"resolutions": [[3, 5, 2], 4, [9, 2, 7]], "log2_hashmap_size": 6},
            {"n_dims": 3},
        ),
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
    ("encoding", "Permutohedral"): [
        (
            {
                "n_levels": 3,
                "log2_hashmap_size": 6,
                "base_resolution": 2,
                "per_level_scale": 2.0,
            },
            {"n_dims": 5},
        ),
        (
            {
                "n_levels": 2,
                "n_features_per_level": 1,
                "log2_hashmap_size": 5,
                "base_resolution": 3,
            },
            {"n_dims": 2},
        ),
        (
            {
                "n_levels": 1,
                "n_features_per_level": 4,
                "log2_hashmap_size": 6,
                "base_resolution": 4,
            },
            {"n_dims": 3},
        ),
    ],
    ("encoding", "RandomFourier"): [
        ({"n_features": 16}, {"n_dims": 2}),
        ({"n_features": 6, "scale": 4.0, "seed": 3}, {"n_dims": 5}),
        ({"frequencies": [[0.5], [-1.25], [0.0]]}, {"n_dims": 1}),
    ],
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
        (
            {"n_neurons": 16, "n_hidden_layers": 2, "activation": "Tanh", "bias": True},
            {"n_input_dims": 16, "n_output_dims": 3},
        ),
        (
            {"n_neurons": 48, "n_hidden_layers": 2, "activation": "Squareplus"},
            {"n_input_dims": 16, "n_output_dims": 1},
        ),
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
        (
            {"n_neurons": 5, "n_hidden_layers": 1, "activation": "Sine", "bias": True},
            {"n_input_dims": 16, "n_output_dims": 18},
        ),
        (
            {"n_hidden_layers": 0, "output_activation": "Sigmoid", "bias": True},
            {"n_input_dims": 16, "n_output_dims": 1},
        ),
    ],
    ("loss", "L1"): [({}, {})],
    ("loss", "L2"): [({}, {})],
    ("loss", "RelativeL1"): [({}, {})],
    ("loss", "RelativeL2"): [({}, {})],
    ("loss", "RelativeL2Luminance"): [({}, {})],
    ("loss", "MAPE"): [({}, {})],
    ("loss", "SMAPE"): [({}, {})],
    ("loss", "CrossEntropy"): [({}, {})],
    ("loss", "Variance"): [({}, {})],
    ("loss", "Huber"): [({}, {}), ({"delta": 0.25}, {})],
    ("loss", "LogL1"): [({}, {})],
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
    ("optimizer", "AdamW"): [
        ({}, {}),
        (
            {
                "learning_rate": 0.1,
                "weight_decay": 0.5,
                "non_matrix_weight_decay": 0.25,
                "non_matrix_learning_rate_factor": 0.5,
            },
            {},
        ),
        ({"learning_rate": 0.1, "optimize_matrix_params": False}, {}),
    ],
    ("optimizer", "SGD"): [({}, {}), ({"learning_rate": 0.5, "l2_reg": 0.25}, {})],
    ("optimizer", "Novograd"): [
        ({}, {}),
        (
            {
                "learning_rate": 0.1,
                "beta1": 0.5,
                "beta2": 0.25,
                "relative_decay": 0.1,
                "absolute_decay": 0.05,
            },
            {},
        ),
    ],
    ("optimizer", "Shampoo"): [
        ({}, {}),
        (
            {
                "learning_rate": 0.01,
                "identity": 0.1,
                "cg_on_momentum": False,
                "l2_reg": 0.1,
                "relative_decay": 0.1,
                "absolute_decay": 0.05,
                "frobenius_normalization": False,
            },
            {},
        ),
    ],
    ("optimizer", "Muon"): [
        ({}, {}),
        (
            {
                "learning_rate": 0.1,
                "momentum": 0.5,
                "nesterov": False,
                "n_iterations": 3,
                "weight_decay": 0.25,
                "adam_learning_rate": 0.01,
                "beta1": 0.5,
                "beta2": 0.75,
            },
            {},
        ),
    ],
    ("optimizer", "SOAP"): [
        ({}, {}),
        (
            {
                "learning_rate": 0.001,
                "matrix_beta1": 0.5,
                "matrix_beta2": 0.75,
                "shampoo_beta": 0.5,
                "interval": 3,
                "weight_decay": 0.25,
                "adam_learning_rate": 0.01,
            },
            {},
        ),
    ],
    ("optimizer", "EMA"): [
        ({}, {}),
        ({"decay": 0.0, "nested": {"otype": "SGD"}}, {}),
        (
            {
                "decay": 0.75,
                "full_precision": True,
                "nested": {"otype": "ExponentialDecay", "nested": FAST_ADAM, **FAST_DECAY},
            },
            {},
        ),
        ({"decay": 0.5, "nested": {"otype": "Lookahead", "n_steps": 3, "nested": FAST_ADAM}}, {}),
        ({"nested": {"otype": "Composite", "nested": PARTS}}, {}),
    ],
    ("optimizer", "ExponentialDecay"): [
        ({}, {}),
        ({**FAST_DECAY, "nested": FAST_ADAM}, {}),
        ({"decay_start": 0, "decay_interval": 1, "decay_base": 0.5, "nested": FAST_ADAM}, {}),
        ({**FAST_DECAY, "nested": {"otype": "EMA", "decay": 0.5, "nested": FAST_ADAM}}, {}),
        ({**FAST_DECAY, "nested": {"otype": "Composite", "nested": PARTS}}, {}),
    ],
    ("optimizer", "CosineDecay"): [
        ({"n_steps": 7, "decay_start": 2, "end_factor": 0.125, "nested": FAST_ADAM}, {}),
        ({"n_steps": 5, "nested": {"otype": "Composite", "nested": PARTS}}, {}),
    ],
    ("optimizer", "WarmUp"): [
        ({"nested": FAST_ADAM}, {}),
        (
            {
                "n_steps": 3,
                "start_factor": 0.25,
                "nested": {"otype": "ExponentialDecay", "nested": FAST_ADAM, **FAST_DECAY},
            },
            {},
        ),
    ],
    ("optimizer", "ParamGroups"): [
        ({}, {}),
        (
            {
                "nested": FAST_ADAM,
                "groups": [
                    {"parts": ["network.1"], "learning_rate_factor": 0.0},
                    {"parts": ["network.*"], "learning_rate_factor": 0.5, "weight_decay": 0.25},
                ],
            },
            {},
        ),
        (
            {
                "nested": {"otype": "SGD", "learning_rate": 0.5},
                "groups": [{"parts": ["encoding.*"], "learning_rate_factor": 3.0}],
            },
            {},
        ),
    ],
    ("optimizer", "Piecewise"): [
        ({}, {}),
        ({"points": [[2, 0.5], [5, 2.0], [5, 0.25], [9, 0.0]], "nested": FAST_ADAM}, {}),
        (
            {
                "points": [[0, 1.0], [6, 0.5]],
                "nested": {"otype": "Batched", "batch_size_multiplier": 2, "nested": FAST_ADAM},
            },
            {},
        ),
    ],
    ("optimizer", "Average"): [
        ({"n_samples": 5, "nested": FAST_ADAM}, {}),
        ({"n_samples": 1, "nested": {"otype": "Batched", "nested": FAST_ADAM}}, {}),
    ],
    ("optimizer", "Batched"): [
        ({}, {}),
        ({"batch_size_multiplier": 1, "nested": FAST_ADAM}, {}),
        ({"batch_size_multiplier": 5, "nested": FAST_NOVOGRAD}, {}),
        ({"batch_size_multiplier": 3, "nested": {"otype": "Shampoo"}}, {}),
        (
            {
                "batch_size_multiplier": 2,
                "nested": {"otype": "EMA", "decay": 0.5, "nested": FAST_ADAM},
            },
            {},
        ),
    ],
    ("optimizer", "Lookahead"): [
        ({"nested": FAST_ADAM}, {}),
        ({"alpha": 0.25, "n_steps": 3, "nested": FAST_NOVOGRAD}, {}),
        ({"alpha": 0.75, "n_steps": 1, "nested": {"otype": "SGD", "learning_rate": 1e-3}}, {}),
    ],
    ("optimizer", "Composite"): [
        ({"nested": [{"n_params_to_optimize": 60, **FAST_ADAM}]}, {}),
        ({"learning_rate": 0.5, "nested": PARTS}, {}),
        (
            {
                "nested": [
                    {"n_params_to_optimize": 32, **FAST_NOVOGRAD},
                    {"n_params_to_optimize": 18, **FAST_NOVOGRAD},
                    {"n_params_to_optimize": 10, **FAST_ADAM, "l2_reg": 0.1},
                ]
            },
            {},
        ),
        (
            {
                "nested": [
                    {"n_params_to_optimize": 32, **FAST_ADAM},
                    {"n_params_to_optimize": 28, "otype": "Shampoo"},
                ]
            },
            {},
        ),
        (
            {
                "nested": [
                    {"n_params_to_optimize": 32, "otype": "Muon"},
                    {"n_params_to_optimize": 28, **FAST_ADAM},
                ]
            },
            {},
        ),
    ],
}

ALIASES = {
    ("encoding", "NRC"): "OneBlobFrequency",
    ("network", "MegakernelMLP"): "FullyFusedMLP",
    ("network", "MLP"): "CutlassMLP",
}


@dataclasses.dataclass(frozen=True)
class LossArguments:
    """What the laws may ask of a loss; most take any numbers."""

    positive: bool = False  # predictions and targets are
    widths: tuple[int, ...] = (1, 3, 33)
    perfect: tuple[float, ...] = (0.5, -2.0, 3.0)  # the loss is 0 where this meets itself

    def draw(self, rng, n):
        """A prediction, a target and a density, float32 [n]."""
        prediction, target = rng.normal(size=(2, n))
        if self.positive:
            prediction, target = np.exp(prediction), np.exp(target)
        pdf = rng.uniform(0.1, 2, n)
        return tuple(array.astype(np.float32) for array in (prediction, target, pdf))


LOSS_ARGUMENTS = {
    "CrossEntropy": LossArguments(positive=True, perfect=(1.0, 1.0)),
    "Variance": LossArguments(positive=True, perfect=(1.0, 1.0)),
    "RelativeL2Luminance": LossArguments(widths=(3, 5, 6, 33)),
}


def loss_arguments(otype):
    return LOSS_ARGUMENTS.get(otype, LossArguments())


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


def changed(kind, component, options):
    """The component with some options changed, as Trainer.update_hyperparams changes them."""
    config = registry.merged(registry.to_config(component), options)
    return registry.create(kind, config, default="none")


def holds(written, given):
    """Whether a written config has all of what was given, at any depth."""
    if isinstance(given, dict):
        return all(holds(written[key], value) for key, value in given.items())
    if isinstance(given, list):
        return all(holds(*pair) for pair in zip(written, given, strict=True))
    return written == given


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

    def forward_per_sample(self):
        def one(i, y):
            self.encoding.forward(self.x[i], self.params, y)

        return self.per_sample(one, self.encoding.n_outputs)[0]

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

    def double_backward_params_per_sample(self):
        inner, whole = guarded(self.encoding.n_params)
        for i in range(len(self.x)):
            arrays = self.x[i], self.params, self.dl_dy[i], self.dl_ddx[i]
            self.encoding.double_backward_params(*arrays, inner)
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


class Steps:
    """An optimizer's device functions called one by one, as an engine calls them."""

    def __init__(self, optimizer, layout, weights):
        self.optimizer, self.layout = optimizer, layout
        self.functions = functions_of(optimizer, layout)
        self.weights = weights.astype(np.float32)
        self.state = optimizer.initial_state(self.weights)
        assert self.state.shape == (optimizer.n_state, layout.n_params)
        assert self.state.dtype == np.float32
        self.ranges = optimizer.matrix_ranges(layout)
        self.matrices = np.zeros((optimizer.n_matrix_state, len(self.ranges)), np.float32)
        self.statistics = np.zeros(optimizer.n_statistics(layout), np.float32)
        self.t = 0

    def step(self, gradient):
        """Make one step; the schedule writes its scalars and nothing beside them."""
        self.t += 1
        schedule, summand, matrix_step, step = self.functions
        hyperparams = np.array(self.optimizer.hyperparams(), np.float32)
        assert len(hyperparams) == self.optimizer.n_hyperparams
        scalars, whole = guarded(self.optimizer.n_scalars)
        schedule(np.int32(self.t), hyperparams, scalars)
        assert_guards_untouched(scalars, whole)
        pairs = list(zip(self.weights.copy(), gradient.astype(np.float32), strict=True))
        if self.optimizer.n_matrix_state:
            for m, (first, last) in enumerate(self.ranges):
                parts = [summand(i, *pairs[i], self.state, scalars) for i in range(first, last)]
                matrix_step(m, np.float32(np.sum(parts)), self.matrices, scalars)
        if self.optimizer.preconditions(self.layout):
            arrays = self.state, self.matrices, self.statistics, scalars
            self.optimizer.precondition(operations, self.layout, *arrays)
        for i, (w, g) in enumerate(pairs):
            self.weights[i] = step(i, w, g, self.state, scalars, self.matrices)

    @property
    def inference_weights(self):
        row = self.optimizer.inference_row
        return self.weights if row is None else self.state[row]


@functools.cache
def functions_of(optimizer, layout):
    """Schedule, summand, matrix step and step."""
    makers = (optimizer.summand, optimizer.matrix_step, optimizer.step)
    return (optimizer.schedule, *(make(layout) for make in makers))
