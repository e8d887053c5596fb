"""Overhead of PyTorch: numbanet.torch beside tinycudann, or beside the Trainer.

    python -m benchmarks.scripts.torch_overhead [--device auto] [--json FILE] [--profile]

On a GPU: `model(x)` under no_grad, a training step with mse_loss and fused Adam, one with
`model.loss`, and one in a CUDA graph; for each the time in all and that of the host. On a CPU the
same, and with --trainer the job of cpu_training.py, with its verification and its timing, beside
the Trainer and compiled PyTorch. With `--device none` the host's part of a GPU's work: there is
nothing behind the device, and PyTorch's own work is done by the CPU. OpenMP's threads wait
passively in all processes, unless OMP_WAIT_POLICY says otherwise. Needs the `torch` extra.
"""

import argparse
import cProfile
import datetime
import os
import platform
import pstats
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before OpenMP is loaded

import numpy as np

from benchmarks.harness import recording_device, torch_calls
from benchmarks.harness.machine import machine
from benchmarks.harness.options import RESULTS, batch_sizes, chosen_from
from benchmarks.harness.run import Run
from benchmarks.methods import CPU_RIVALS, NUMBANET, NUMBANET_TORCH
from benchmarks.scripts.cpu_training import CEILINGS, JOB

import torch  # isort: skip (after numbanet.torch)

RIVAL = "torch-compiled"
SIZES = {"cuda": "2^12,2^16,2^18", "cpu": "2^12,2^16", "none": "2^6"}
N_PROFILED, N_LINES = 200, 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "none"), default="auto")
    parser.add_argument("--models", default=",".join(torch_calls.MODELS))
    parser.add_argument("--batch-sizes", help="such as 2^12,2^16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-graphs", action="store_true", help="capture no CUDA graphs")
    parser.add_argument("--trainer", action="store_true", help="on a CPU: beside the Trainer too")
    parser.add_argument("--rivals", type=chosen_from(CPU_RIVALS), default=RIVAL,
                        help="beside the Trainer; none for none")  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="what takes the host's time")
    parser.add_argument("--json", type=Path, default=RESULTS / "torch_overhead.json")
    options = parser.parse_args()
    kind = options.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "none":
        recording_device.stand_in()
    options.batch_sizes = batch_sizes(options.batch_sizes or SIZES[kind])
    options.json.parent.mkdir(parents=True, exist_ok=True)

    def write(report):
        options.json.write_text(torch_calls.as_text(report))

    device = torch.device("cuda", 0) if kind == "cuda" else torch.device("cpu")
    report = describe(device)
    names = options.models.split(",")
    torch_calls.run(names, options, device, report, write)
    if options.profile:
        dtype = torch.float16 if kind == "none" else None
        profile(names[0], options.batch_sizes[0], device, dtype)
    if options.trainer:
        report["beside the Trainer"] = beside_the_trainer(options)
    write(report)
    print(f"\nwritten to {options.json}")


def describe(device):
    """Description of the machine and its software."""
    described = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        described |= {
            "device": torch.cuda.get_device_name(device),
            "compute_capability": torch.cuda.get_device_capability(device),
            "cuda": torch.version.cuda,
        }
    return described


def profile(name, n, device, dtype):
    """Print where the time of calls and steps goes, function by function."""
    way = torch_calls.Way(torch_calls.numbanet_torch, name, device, dtype)
    x, y = torch_calls.batch(name, n, device)
    for method in ("call", "step"):
        work = getattr(way, method)
        for _ in range(3):
            work(x, y)
        torch_calls.wait(device)
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(N_PROFILED):
            work(x, y)
        profiler.disable()
        torch_calls.wait(device)
        print(f"\n{N_PROFILED} times {method}, {name}, {n}")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(N_LINES)


def beside_the_trainer(options):
    """The job of cpu_training.py: the report, after printing ratios."""
    rivals = {name: CPU_RIVALS[name] for name in options.rivals}
    methods = {**NUMBANET, **NUMBANET_TORCH, **rivals}
    run = Run(machine(), methods, tuple(NUMBANET), CEILINGS, n_rounds=options.rounds,
              round_seconds=0.4)  # fmt: skip
    run.measure(JOB, {"training": options.batch_sizes})
    for result in run.report["results"]:
        print_ratios(result["batch_size"], result["methods"], *NUMBANET)
    return run.report


def print_ratios(n, rows, trainer):
    """Milliseconds of a step, and as much as the Trainer's, taken round by round."""
    print(f"\ntraining step of {n} samples: ms, and times the Trainer's (quartiles)")
    for name, row in rows.items():
        line = f"{name:22} {1e-3 * row['microseconds']:8.2f}"
        if trainer in rows:
            ratios = np.divide(row["seconds"], rows[trainer]["seconds"])
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            line += f" {middle:8.2f}   ({low:.2f} to {high:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
