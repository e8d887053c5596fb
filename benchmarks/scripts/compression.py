"""Size against PSNR of tables in int8 and in 1 bit, beside float16.

    python -m benchmarks.scripts.compression [--device cpu] [--steps 400] [--figure file.png]

The photograph, and a volume: soft shells around three points. Each is learned by hash grids of
several sizes. Bytes are those of the files, `model.save(for_inference=True)`, or two a parameter.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np

import numbanet
from benchmarks.harness.photograph import Photograph

PHOTOGRAPH = "samples/images/astronaut.png"
LOG2_SIZES = 10, 12, 14, 16
COMPRESSIONS = {"float16": "None", "Int8": "Int8", "OneBit": "OneBit"}
BATCH = 2**13
CENTRES = np.array([[0.3, 0.4, 0.5], [0.65, 0.6, 0.4], [0.5, 0.25, 0.75]])


def volume(x):
    """Densities in [0, 1], of waves on shells."""
    distances = np.linalg.norm(x[:, None, :] - CENTRES, axis=2)
    waves = 0.5 + 0.5 * np.sin(60 * distances[:, :1] + 9 * x[:, 1:2])
    shells = np.exp(-((distances - 0.2) ** 2) / 0.002).max(axis=1, keepdims=True)
    return (shells * waves).astype(np.float32)


class Picture:
    n_inputs, n_outputs = 2, 3

    def __init__(self):
        self.photograph = Photograph(PHOTOGRAPH)
        self.test = self.photograph.pixel_centres()[::5]

    def values(self, x):
        return self.photograph.look_up(x)


class Volume:
    n_inputs, n_outputs = 3, 1

    def __init__(self):
        self.test = np.random.default_rng(1).random((2**16, 3), np.float32)

    def values(self, x):
        return volume(x)


def learned(signal, compression, log2_size, options):
    """PSNR, bytes, and the seconds that training took."""
    config = {
        "loss": {"otype": "L2"},
        "optimizer": {"otype": "CosineDecay", "n_steps": options.steps, "end_factor": 0.05,
                      "nested": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15}},
        "encoding": {"otype": "HashGrid", "n_levels": 12, "log2_hashmap_size": log2_size,
                     "base_resolution": 8, "per_level_scale": 1.5,
                     "compression": COMPRESSIONS[compression]},
        "network": {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2},
    }  # fmt: skip
    sizes = signal.n_inputs, signal.n_outputs
    model = numbanet.create_from_config(*sizes, config, device=options.device)
    rng, start = np.random.default_rng(0), time.perf_counter()
    for _ in range(options.steps):
        x = rng.random((BATCH, signal.n_inputs), np.float32)
        float(model.trainer.training_step(x, signal.values(x)))
    seconds = time.perf_counter() - start
    error = np.mean((np.asarray(model(signal.test)) - signal.values(signal.test)) ** 2)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        model.save(path, for_inference=True)
        n_bytes = os.path.getsize(path)
    if compression == "float16":
        n_bytes = 2 * model.network.n_params
    return {"compression": compression, "log2_hashmap_size": log2_size, "bytes": n_bytes,
            "psnr": float(-10 * np.log10(error)), "seconds": seconds}  # fmt: skip


def draw(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(9, 3.6), layout="constrained")
    for axis, (name, rows) in zip(axes, found.items(), strict=True):
        for compression in COMPRESSIONS:
            own = [row for row in rows if row["compression"] == compression]
            kilobytes = [row["bytes"] / 1e3 for row in own]
            axis.plot(kilobytes, [row["psnr"] for row in own], "o-", label=compression)
        axis.set(title=name, xlabel="kB", xscale="log", ylabel="PSNR, dB")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--figure")
    parser.add_argument("--json")
    options = parser.parse_args()
    found = {}
    for name, signal in {"photograph": Picture(), "volume": Volume()}.items():
        found[name] = []
        for compression in COMPRESSIONS:
            for log2_size in LOG2_SIZES:
                row = learned(signal, compression, log2_size, options)
                found[name].append(row)
                print(
                    f"{name:<10}  {compression:<8} 2^{log2_size:<3} {row['bytes'] / 1e3:8.1f} kB "
                    f"{row['psnr']:6.2f} dB  {row['seconds']:5.1f} s",
                    flush=True,
                )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
