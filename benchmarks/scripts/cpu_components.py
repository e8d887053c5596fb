"""Speed of each component on one CPU thread, compared with the same formula in NumPy.

Everything that is registered is measured on 2^16 samples: encodings of 2 inputs, or as many as they
need (forward, and the gradient of the parameters or else of the inputs), activations of 16 neurons,
losses of 3 outputs, and a step of each optimizer on 2^20 parameters. Each is compared with float64
first.
"""

import argparse
import statistics
import sys
import time

import numba
import numpy as np
from numba import njit

import numbanet
from benchmarks.harness.numpy_formulas import FORMULAS
from benchmarks.harness.samples import HASH
from numbanet import registry
from numbanet.activations import activation

N = 2**16
N_NEURONS, N_OUTPUTS = 16, 3
TILE = 128  # samples that a training step has in the cache at once
TOLERANCE = 1e-5  # of the largest value
GRID_TOLERANCE = 5e-3  # a float32 position in the finest of a grid's lattices has few digits left
SMALL_TABLES = {name: HASH["encoding"][name] for name in ("log2_hashmap_size", "per_level_scale")}
CONFIGS = {
    **dict.fromkeys(("Grid", "HashGrid", "TiledGrid"), SMALL_TABLES),
    "Composite": {
        "nested": [
            {"otype": "TriangleWave", "n_dims_to_encode": 1},
            {"otype": "Identity", "n_dims_to_encode": 1},
        ]
    },
}
NRC_DIMS = 9
N_CHECKED_STEPS = 17  # of an optimizer, more than the 16 after which some of them do something
# About 2^20 parameters in a grid of one level, and one matrix
OPTIMIZER_MODEL = {
    "encoding": {
        "otype": "DenseGrid", "n_levels": 1, "n_features_per_level": 8, "base_resolution": 362,
        "per_level_scale": 2.0,
    },
    "network": {"otype": "CutlassMLP", "n_hidden_layers": 0},
}  # fmt: skip


class Measurement:
    """Component and its rival: functions without arguments."""

    def __init__(self, kind, name, part, ours, rival=None, exact=None, tolerance=TOLERANCE):
        self.title = f"{kind:10} {name:20} {part}"
        self.ours, self.rival, self.exact, self.tolerance = ours, rival, exact, tolerance
        self.checked = ours  # gives the arrays that are compared with the exact ones

    def verify(self):
        """Return whether the result agrees with the formula in float64."""
        expected, actual = (
            [np.asarray(array, np.float64) for array in function()]
            for function in (self.exact, self.checked)
        )
        return all(
            np.abs(a - b).max() <= self.tolerance * np.abs(b).max()
            for a, b in zip(actual, expected, strict=True)
        )

    def times(self, n_rounds):
        """Return the median seconds of both, taken in turns."""
        functions = [self.ours] + ([self.rival] if self.rival else [])
        rounds = [[seconds(function) for function in functions] for _ in range(n_rounds)]
        return [statistics.median(column) for column in zip(*rounds, strict=True)]


def seconds(function):
    """Seconds per call, of as many as take 20 ms; the first one does not count."""
    function()
    n_calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < 0.02:
        function()
        n_calls += 1
    return spent / n_calls


def doubles(*arrays):
    return [array.astype(np.float64) for array in arrays]


def encodings(rng):
    for name in registry.registered("encoding"):
        config = CONFIGS.get(name, {})
        model = None
        for n_dims in (2, 3, NRC_DIMS):
            try:
                model = numbanet.create_encoding(n_dims, {"otype": name, **config})
                break
            except numbanet.ConfigError as error:
                reason = error
        if model is None:
            yield f"{'encoding':10} {name:20} left out: {reason}"
            continue
        model.params[:] = rng.normal(size=model.n_params)
        x = rng.random((N, n_dims), np.float32)
        dl_dy = rng.normal(size=(N, model.n_output_dims)).astype(np.float32)
        context = model.forward(x)[1]
        has_params = model.n_params > 0

        def forward(model=model, x=x):
            return [model(x)]

        def gradient(model=model, context=context, dl_dy=dl_dy, has_params=has_params):
            dl_dx = model.backward(context, dl_dy, input_gradient=not has_params)
            return [model.gradients if has_params else dl_dx]

        yield from compared(
            "encoding", name, ("forward", "gradient"), (forward, gradient),
            ((x, model.params), (x, model.params)), (config, config), ((), (dl_dy,)),
            GRID_TOLERANCE if has_params else TOLERANCE,
        )  # fmt: skip


def compared(kind, name, parts, ours, arrays, configs, more, tolerance):
    """Measurements of the parts of a component, with its formulas where there are some."""
    formulas = FORMULAS.get((kind, name), (None,) * len(parts))
    for part, function, formula, (x, params), config, extra in zip(
        parts, ours, formulas, arrays, configs, more, strict=True
    ):
        if formula is None:
            yield Measurement(kind, name, part, function)
            continue
        yield Measurement(
            kind, name, part, function,
            lambda f=formula, a=(x, params, config, *extra): [f(*a)],
            lambda f=formula, x=x, params=params, config=config, extra=extra: [
                f(*doubles(x, params), config, *doubles(*extra))
            ],
            tolerance,
        )  # fmt: skip


def activation_loops(found):
    """The device functions of an activation, over arrays."""
    forward, backward = found.forward, found.backward

    @njit(fastmath=True, error_model="numpy")
    def forward_loop(x, y):
        for i in range(x.size):
            y[i] = forward(x[i])

    @njit(fastmath=True, error_model="numpy")
    def backward_loop(dl_dy, kept, dl_dx):
        for i in range(kept.size):
            dl_dx[i] = backward(dl_dy[i], kept[i])

    return forward_loop, backward_loop


def activations(rng):
    x, dl_dy = rng.normal(size=(2, N * N_NEURONS)).astype(np.float32)
    result = np.empty_like(x)
    for name in registry.registered("activation"):
        found = activation(name)
        forward_loop, backward_loop = activation_loops(found)
        y = np.empty_like(x)
        forward_loop(x, y)

        def forward(loop=forward_loop):
            loop(x, result)
            return [result]

        def backward(loop=backward_loop, kept=x if found.from_input else y):
            loop(dl_dy, kept, result)
            return [result]

        formulas = FORMULAS.get(("activation", name))
        if formulas is None:
            yield Measurement("activation", name, "forward", forward)
            yield Measurement("activation", name, "backward", backward)
            continue
        value, slope = formulas
        yield Measurement(
            "activation", name, "forward", forward,
            lambda value=value: [value(x)],
            lambda value=value: [value(*doubles(x))],
        )  # fmt: skip
        yield Measurement(
            "activation", name, "backward", backward,
            lambda slope=slope, y=y: [slope(dl_dy, x, y)],
            lambda slope=slope, y=y: [slope(*doubles(dl_dy, x, y))],
        )  # fmt: skip


def loss_loop(rows):
    @njit(fastmath=True, error_model="numpy")
    def loop(prediction, target, pdf, gradient):
        total = 0.0
        for start in range(0, prediction.size, TILE * N_OUTPUTS):
            part = slice(start, start + TILE * N_OUTPUTS)
            total += rows(TILE, prediction[part], target[part], pdf[part], gradient[part])
        return total

    return loop


def losses(rng):
    arrays = rng.uniform(0.1, 2, (3, N, N_OUTPUTS)).astype(np.float32)
    gradient = np.empty_like(arrays[0])
    flat = [array.reshape(-1) for array in (*arrays, gradient)]
    for name in registry.registered("loss"):
        loss = numbanet.create_loss({"otype": name})
        rows_loop = loss_loop(loss.rows(N_OUTPUTS, True))

        def ours(loop=rows_loop):
            return [loop(*flat), gradient]

        formula = FORMULAS.get(("loss", name))
        if formula is None:
            yield Measurement("loss", name, "with gradient", ours)
            continue
        yield Measurement(
            "loss", name, "with gradient", ours,
            lambda formula=formula: formula(*arrays),
            lambda formula=formula: formula(*doubles(*arrays)),
        )  # fmt: skip


def optimizer_config(name):
    if name == "Average":
        return {"otype": name, "n_samples": 8}
    if name != "Composite":
        return {"otype": name}
    network = numbanet.create_from_config(2, 1, OPTIMIZER_MODEL, device="cpu").network
    sizes = network.network.n_params, network.encoding.n_params
    parts = zip(("SGD", "Adam"), sizes, strict=True)
    return {
        "otype": name,
        "nested": [{"otype": otype, "n_params_to_optimize": n} for otype, n in parts],
    }


class OptimizerStep:
    """Steps of an optimizer with given gradients; what a trainer adds to them is a scan for NaN."""

    def __init__(self, name):
        config = {**OPTIMIZER_MODEL, "optimizer": optimizer_config(name)}
        self.model = numbanet.create_from_config(2, 1, config, device="cpu")
        self.network = self.model.network
        rng = np.random.default_rng(0)
        n_params = self.network.n_params
        self.start = rng.normal(size=n_params).astype(np.float32)
        self.gradients = rng.uniform(0.1, 1, n_params).astype(np.float32)
        self.network.params[:] = self.start
        self.network.gradients[:] = self.gradients
        self.n_matrix_params = self.network.network.n_params
        self.sample = np.full((1, 2), 0.5, np.float32), np.zeros((1, 1), np.float32)

    def __call__(self):
        x, nothing = self.sample
        trainer = self.model.trainer
        trainer.training_step(x, None, external_dl_dy=nothing, gradient_mode="accumulate")

    def checked(self):
        """The weights after some steps, and those for inference."""
        for _ in range(N_CHECKED_STEPS):
            self()
        for_inference = self.model.trainer._params_for_inference()
        weights = self.network.params
        return [weights, weights if for_inference is None else for_inference]

    def numpy_step(self, formula, dtype):
        """A function that makes the same steps with a formula."""
        weights, gradients = self.start.astype(dtype), self.gradients.astype(dtype)
        state, t = {}, 0

        def step():
            nonlocal t
            t += 1
            formula(weights, gradients, state, t, self.n_matrix_params)

        def checked():
            for _ in range(N_CHECKED_STEPS):
                step()
            return [weights, state.get("inference", weights)]

        return checked if dtype is np.float64 else step


def optimizers(rng):
    for name in registry.registered("optimizer"):
        ours = OptimizerStep(name)
        formula = FORMULAS.get(("optimizer", name))
        if formula is None:
            yield Measurement("optimizer", name, "step", ours)
            continue
        rival, exact = (ours.numpy_step(formula, dtype) for dtype in (np.float32, np.float64))
        measurement = Measurement("optimizer", name, "step", ours, rival, exact, tolerance=5e-6)
        measurement.checked = ours.checked
        yield measurement


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only what has this in its line")
    arguments = parser.parse_args()
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"one thread, {N} samples, float32; milliseconds, medians of {arguments.rounds} rounds")
    print(f"{'':45} numbanet     NumPy   ratio", flush=True)
    failed = []
    for measure in (encodings, activations, losses, optimizers):
        for measurement in measure(rng):
            if isinstance(measurement, str):
                print(measurement)
                continue
            if arguments.only not in measurement.title:
                continue
            if measurement.rival and not measurement.verify():
                failed.append(measurement.title)
                print(f"{measurement.title:45} WRONG: differs from the float64 formula")
                continue
            ours, *rival = measurement.times(arguments.rounds)
            line = f"{measurement.title:45} {1e3 * ours:8.3f}"
            if rival:
                line += f"  {1e3 * rival[0]:8.3f}  {rival[0] / ours:6.1f}"
            else:
                line += "  no NumPy formula to compare with"
            print(line, flush=True)
    if failed:
        sys.exit(f"{len(failed)} results differ from their formulas")


if __name__ == "__main__":
    main()
