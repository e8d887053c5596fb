"""Is deterministic training on a GPU so, what does it cost, and does it learn as well?

    python -m benchmarks.scripts.gpu_determinism [--questions bits,time,quality]
        [--models NAME,...] [--runs 100] [--steps 1000] [--batch 2^14] [--batches 2^14,2^16,2^18]

bits: digests of the parameters after so many steps, of so many runs from the same start; one is
right. Printed are how many there are, and the first, to be compared between processes.
time: microseconds of a step, both ways in turns, and their ratio. Wall clock, medians.
quality: PSNR of an image, a 3-D field and a distance field after so many steps, over 5 seeds,
deterministic and with sums of float32. The rate decays: else the last steps decide by chance.
"""

import argparse
import hashlib
import sys
from functools import partial

import numpy as np

from benchmarks.harness import real_models
from benchmarks.harness.gpu import gpu_is_usable
from benchmarks.harness.options import batch_sizes, chosen_from
from benchmarks.harness.real_models import IMAGE
from benchmarks.harness.turns import on_device
from benchmarks.scripts.gpu_models import NEVER

# name -> model, precision
MODELS = {
    "image": (real_models.MODELS["image"], "float16"),
    "field": (real_models.MODELS["field"], "float16"),
    "distance": (real_models.MODELS["distance"], "float16"),
    "wide": ((2, 3, IMAGE, 128, 5), "float16"),
    "frequencies": (real_models.MODELS["frequencies"], "float16"),
    "harmonics": (real_models.MODELS["grid_and_harmonics"], "bfloat16"),
    "random_corners": ((2, 3, {**IMAGE, "stochastic_interpolation": True}, 64, 2), "float16"),
    "image_float32": (real_models.MODELS["image"], "float32"),
}
ADAM = {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15}
N_BATCHES, N_SEEDS = 8, 5
N_POOL = 64  # batches that are learnt in turns
QUESTIONS = ("bits", "time", "quality")


def create(name, deterministic, seed=1337, decays_over=None):
    """A model whose rate falls to a thousandth over so many steps, where that is given."""
    model, precision = MODELS[name]
    optimizer = decaying(decays_over) if decays_over else ADAM
    options = {"seed": seed, "precision": precision, "deterministic": deterministic}
    return real_models.create(model, optimizer=optimizer, **options)


def decaying(n_steps):
    interval = max(n_steps // 20, 1)
    decay = {"decay_start": interval, "decay_interval": interval, "decay_base": 1e-3 ** (1 / 19)}
    return {"otype": "ExponentialDecay", **decay, "nested": ADAM}


def batches(model, n, seed=0):
    rng = np.random.default_rng(seed)
    widths = model.network.n_input_dims, model.network.n_output_dims
    to_device = model.network.target.from_host
    return [
        tuple(to_device(rng.random((n, k), dtype=np.float32)) for k in widths)
        for _ in range(N_BATCHES)
    ]


def digests(model, n, runs, steps):
    """A digest of the parameters after each run."""
    network, trainer, target = model.network, model.trainer, model.network.target
    start, given, found = network.params.numpy(), batches(model, n), []
    for _ in range(runs):
        network.params = start
        trainer.n_steps = 0
        target.set_zero(trainer.optimizer_state)
        for k in range(steps):
            trainer.training_step(*given[k % N_BATCHES])
        found.append(hashlib.sha256(network.params.numpy().tobytes()).hexdigest())
    return found


def ask_for_bits(name, options):
    right = digests(create(name, True), options.batch, options.runs, options.steps)
    others = digests(create(name, False), options.batch, 3, min(options.steps, 100))
    print(
        f"{name:16} {options.runs} runs x {options.steps} steps: {len(set(right))} digests, "
        f"{right[0][:16]}; default, 3 x {min(options.steps, 100)}: {len(set(others))}",
        flush=True,
    )
    return len(set(right)) == 1


def ask_for_time(name, options):
    ways = {"default": create(name, False), "deterministic": create(name, True)}
    device = ways["default"].network.target.device
    for n in options.batches:
        calls = {
            way: partial(model.trainer.training_step, *batches(model, n)[0])
            for way, model in ways.items()
        }
        times = on_device(device, calls, n)
        ratio = np.median(np.divide(times["deterministic"], times["default"]))
        cells = [f"{way} {np.median(each):8.1f}" for way, each in times.items()]
        print(
            f"{name:16} 2^{n.bit_length() - 1:<3}{', '.join(cells)}, ratio {ratio:.2f}", flush=True
        )
    return True


def smooth_field(x):
    """Four waves of 3-D points, in [0, 1]."""
    frequencies = np.array([[3, 1, 2], [1, 5, 2], [7, 2, 9], [11, 13, 4]], np.float32)
    return 0.5 + 0.5 * np.sin(2 * np.pi * x @ frequencies.T)


def distances(x):
    """To a torus with bumps."""
    centred = x - 0.5
    ring = np.hypot(np.hypot(centred[:, 0], centred[:, 1]) - 0.25, centred[:, 2])
    return (ring - 0.1 - 0.01 * np.prod(np.sin(40 * centred), axis=1))[:, None]


def image(size=1024):
    """Colours by place: a photograph's spectrum, 1 / f, and discs with edges."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:size, 0:size] / size
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size + 1
    colours = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, size, size))) / frequency)
    colours = 0.5 + 0.15 * colours / colours.std()
    for row, column, radius, *colour in rng.random((40, 6)):
        inside = np.hypot(y - row, x - column) < 0.1 * radius
        colours[:, inside] = np.array(colour)[:, None]
    pixels = np.clip(np.moveaxis(colours, 0, 2), 0, 1).astype(np.float32)

    def look_up(places):
        columns, rows = np.minimum((places * size).astype(int), size - 1).T
        return pixels[rows, columns]

    return look_up


def psnr(name, way, seed, target, n, steps):
    model = create(name, way == "deterministic", seed, steps)
    if way == "float32 sums":
        model.network.engine.tables.fewest = NEVER
    rng, to_device = np.random.default_rng(seed), model.network.target.from_host
    given = []
    for _ in range(N_POOL):
        x = rng.random((n, model.network.n_input_dims), dtype=np.float32)
        given.append((to_device(x), to_device(target(x).astype(np.float32))))
    for k in range(steps):
        model.trainer.training_step(*given[k % len(given)])
    x = np.random.default_rng(99).random((1 << 18, model.network.n_input_dims), dtype=np.float32)
    error = model.trainer.inference(x).numpy() - target(x)
    return -10 * np.log10(np.mean(np.square(error)))


def ask_for_quality(name, options):
    targets = {"image": image, "field": lambda: smooth_field, "distance": lambda: distances}
    if name not in targets:
        return True
    target, ways = targets[name](), ("float32 sums", "deterministic")
    found = {
        way: [psnr(name, way, k, target, options.batch, options.steps) for k in range(N_SEEDS)]
        for way in ways
    }
    means = [np.mean(found[way]) for way in ways]
    cells = [f"{way} {np.mean(each):.3f} ({np.std(each):.3f})" for way, each in found.items()]
    print(f"{name:16} PSNR {', '.join(cells)}, difference {means[1] - means[0]:+.3f}", flush=True)
    return abs(means[1] - means[0]) < 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--questions", type=chosen_from(QUESTIONS), default=QUESTIONS)
    parser.add_argument("--models", type=chosen_from(MODELS), default=list(MODELS))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=lambda text: batch_sizes(text)[0], default=1 << 14)
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^16,2^18"))
    options = parser.parse_args()
    if not gpu_is_usable():
        return
    ask = {"bits": ask_for_bits, "time": ask_for_time, "quality": ask_for_quality}
    answers = [
        ask[question](name, options) for question in options.questions for name in options.models
    ]
    if not all(answers):
        sys.exit("an answer is not as it is to be")


if __name__ == "__main__":
    main()
