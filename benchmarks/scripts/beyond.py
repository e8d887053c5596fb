"""Cases in which components win that tiny-cuda-nn does not have.

    python -m benchmarks.scripts.beyond [--cases random_fourier,...] [--device cpu]

random_fourier: the photograph from few features, random frequencies beside those along the axes.

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
SEEDS = 1337, 1, 2


class Run:
    """A model that is trained on batches that others get too."""

    def __init__(self, n_inputs, n_outputs, config, **options):
        self.model = numbanet.create_from_config(n_inputs, n_outputs, config, **options)
        self.times = []

    def step(self, x, y):
        start = time.perf_counter()
        loss = float(self.model.trainer.training_step(x, y))
        self.times.append(time.perf_counter() - start)
        return loss

    @property
    def milliseconds(self):
        return 1e3 * float(np.median(self.times[len(self.times) // 4 :]))


def psnr(found, expected):
    return -10 * np.log10(np.mean((np.asarray(found) - expected) ** 2))


def configs_of(encodings, network=MLP, optimizer=ADAM):
    rest = {"loss": {"otype": "L2"}, "optimizer": optimizer, "network": network}
    return {name: {"encoding": encoding, **rest} for name, encoding in encodings.items()}


def compared(configs, sizes, batch, test, n_steps, device):
    """Train all configs in turns; PSNR on the test, and a step's time, for each."""
    x, y = test
    for seed in SEEDS:
        runs = {
            name: Run(*sizes, config, seed=seed, device=device) for name, config in configs.items()
        }
        rng = np.random.default_rng(seed)
        for _ in range(n_steps):
            pair = batch(rng)
            for run in runs.values():
                run.step(*pair)
        for name, run in runs.items():
            n_params = run.model.network.n_params
            print(
                f"  seed {seed:>4}  {name:<28} {psnr(run.model(x), y):6.2f} dB"
                f"  {run.milliseconds:7.2f} ms a step  {n_params} parameters",
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


CASES = {each.__name__: each for each in (random_fourier,)}


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
