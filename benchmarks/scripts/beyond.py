"""Cases in which components win that tiny-cuda-nn does not have.

    python -m benchmarks.scripts.beyond [--cases random_fourier,...] [--device cpu]

matrix_optimizers: the photograph again, Muon and SOAP beside Adam and Shampoo.
random_fourier: the photograph from few features, random frequencies beside those along the axes.
permutohedral: functions of 7 inputs, lattices beside hash grids of as many parameters.

Each case trains its rivals in turns on the same batches, from the same seeds, and prints what they
reach and the median of a step's time.
"""

import argparse
import time

import numpy as np

import numbanet
from benchmarks.harness.photograph import Photograph

PHOTOGRAPH = "samples/images/astronaut.png"
ADAM = {"otype": "Adam", "learning_rate": 1e-2, "beta2": 0.99, "epsilon": 1e-15}
MLP = {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 2}
SEEDS = (1337,)
SECONDS = 10.0


class Run:
    """Model trained on batches that its rivals get too."""

    def __init__(self, n_inputs, n_outputs, config, **options):
        self.model = numbanet.create_from_config(n_inputs, n_outputs, config, **options)
        self.times = []

    def step(self, x, y):
        start = time.perf_counter()
        loss = float(self.model.trainer.training_step(x, y))
        self.times.append(time.perf_counter() - start)
        return loss

    @property
    def seconds(self):
        return sum(self.times)

    @property
    def milliseconds(self):
        return 1e3 * float(np.median(self.times[len(self.times) // 4 :]))


def psnr(found, expected):
    return -10 * np.log10(np.mean((np.asarray(found) - expected) ** 2))


def configs_of(encodings, network=MLP, optimizer=ADAM):
    rest = {"loss": {"otype": "L2"}, "optimizer": optimizer, "network": network}
    return {name: {"encoding": encoding, **rest} for name, encoding in encodings.items()}


def compared(configs, sizes, batch, test, length, device):
    """Train all configs, in turns; PSNR on the test, and a step's time, for each.

    `length` is a number of steps, or seconds for each, if it is a float.
    """
    x, y = test
    for seed in SEEDS:
        runs = {
            name: Run(*sizes, config, seed=seed, device=device) for name, config in configs.items()
        }
        rng = np.random.default_rng(seed)
        for run in runs.values():
            run.step(*batch(rng))  # which may compile
            run.times.clear()
        if isinstance(length, float):
            while (next_one := min(runs.values(), key=lambda run: run.seconds)).seconds < length:
                next_one.step(*batch(rng))
        else:
            for _ in range(length):
                pair = batch(rng)
                for run in runs.values():
                    run.step(*pair)
        for name, run in runs.items():
            n_params = run.model.network.n_params
            print(
                f"  seed {seed:>4}  {name:<24} {psnr(run.model(x), y):6.2f} dB"
                f"  {len(run.times):5} steps of {run.milliseconds:7.2f} ms  {n_params} parameters",
                flush=True,
            )


def random_fourier(device):
    """64 features of a position: 16 octaves along each axis, or 32 directions and frequencies."""
    photograph = Photograph(PHOTOGRAPH)
    centres = photograph.pixel_centres()[::7]
    encodings = {
        "Frequency, 16": {"otype": "Frequency", "n_frequencies": 16},
        "Frequency, 8": {"otype": "Frequency", "n_frequencies": 8},
        "RandomFourier, scale 6": {"otype": "RandomFourier", "n_features": 64, "scale": 6.0},
        "RandomFourier, scale 10": {"otype": "RandomFourier", "n_features": 64, "scale": 10.0},
    }
    configs = configs_of(encodings, optimizer={**ADAM, "learning_rate": 2e-3})
    test = centres, photograph.look_up(centres)
    compared(configs, (2, 3), lambda rng: photograph.batch(2**12, rng), test, 600, device)


def plane_waves(n_dims, n_waves=16):
    """A smooth function of n_dims inputs, from waves in all directions."""
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(n_dims, n_waves)) * 1.5 / np.sqrt(n_dims)
    phases, weights = rng.uniform(0, 2 * np.pi, n_waves), rng.normal(size=(n_waves, 3))

    def values(x):
        return 0.5 + (np.sin(2 * np.pi * x @ waves + phases) @ weights) / np.sqrt(32 * n_waves)

    return values


def permutohedral(device):
    """HashGrid and Permutohedral with tables of equal sizes, trained for the same time."""
    for n_dims in (7,):
        print(f" {n_dims} inputs", flush=True)
        tables = {"n_levels": 6, "log2_hashmap_size": 15, "base_resolution": 3,
                  "per_level_scale": 1.4}  # fmt: skip
        encodings = {
            name: {"otype": name, "n_features_per_level": 2, **tables}
            for name in ("HashGrid", "Permutohedral")
        }
        values = plane_waves(n_dims)
        x = np.random.default_rng(1).random((2**14, n_dims), np.float32)

        def batch(rng, values=values, n_dims=n_dims):
            x = rng.random((2**12, n_dims), np.float32)
            return x, values(x)

        compared(configs_of(encodings), (n_dims, 3), batch, (x, values(x)), SECONDS, device)


def matrix_optimizers(device):
    """Train a network without tables by each optimizer, for as many steps."""
    photograph = Photograph(PHOTOGRAPH)
    centres = photograph.pixel_centres()[::7]
    encoding = {"otype": "RandomFourier", "n_features": 64, "scale": 6.0}
    optimizers = {
        f"{name} {rate:g}": {"otype": name, "learning_rate": rate, **options}
        for name, rates, options in (
            ("Adam", (2e-3, 5e-3), {"beta2": 0.99, "epsilon": 1e-15}),
            ("Shampoo", (2e-3, 5e-3), {}),
            ("Muon", (0.01, 0.02), {}),
            ("SOAP", (2e-3, 5e-3), {}),
        )
        for rate in rates
    }
    configs = {
        name: configs_of({name: encoding}, optimizer=optimizer)[name]
        for name, optimizer in optimizers.items()
    }
    test = centres, photograph.look_up(centres)
    compared(configs, (2, 3), lambda rng: photograph.batch(2**12, rng), test, 600, device)


CASES = {each.__name__: each for each in (random_fourier, permutohedral, matrix_optimizers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for name in options.cases.split(","):
        print(f"{name}: {CASES[name].__doc__}", flush=True)
        CASES[name](options.device)


if __name__ == "__main__":
    main()
