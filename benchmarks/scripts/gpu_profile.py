"""Limits of each kernel of the sample configs: counters of a training step and an inference.

    python -m benchmarks.scripts.gpu_profile [--batch 2^18] [--output FOLDER]

Needs a GPU, and ncu of the CUDA toolkit with the right to read counters. For each kernel: its time,
the share of it that the card would need at least (bytes of kernel_floors.py at the copy bandwidth,
products of matrices at the rate of a large one), how busy the parts of the card are, and what warps
wait for most. Compute, memory and caches are in per cent of their peaks.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.harness.gpu_ceilings import Ceilings
from benchmarks.harness.kernel_floors import floor_of
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.sample_kernels import CAPABILITY, create
from benchmarks.harness.samples import NAMES

METRICS = {
    "us": "gpu__time_duration.sum",
    "issue slots": "sm__inst_issued.avg.pct_of_peak_sustained_elapsed",
    "tensor cores": "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed",
    "first-level cache": "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
    "second-level cache": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
}
STALLS = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
REASONS = {
    "long_scoreboard": "global memory",
    "short_scoreboard": "shared memory",
    "lg_throttle": "the queue of global accesses",
    "mio_throttle": "the queue of shared accesses",
    "barrier": "a barrier",
    "math_pipe_throttle": "arithmetic units",
    "wait": "fixed latencies",
    "not_selected": "other warps",
    "dispatch_stall": "dispatch",
    "drain": "stores at the end",
    "membar": "a fence",
    "no_instruction": "instructions",
}
HEADINGS = ("kernel", "launches", *METRICS, "floor", "warps wait for")
N_PASSES = 3


def job(name: str, n: int) -> None:
    """Profiled work, in a process of its own: kernels are launched one by one, not as graphs."""
    from numbanet.cuda.optimizer.training import Graphs

    Graphs.run = lambda self, key, queue, *work: queue(*work)
    model = create(name, "cuda")
    rng = np.random.default_rng(0)
    device = model.network.target
    x = device.from_host(rng.random((n, model.network.n_input_dims), np.float32))
    y = device.from_host(rng.random((n, model.network.n_output_dims), np.float32))
    for _ in range(N_PASSES):
        model.trainer.training_step(x, y)
        model(x)
    device.to_host(y)  # waits


def profiled(name: str, n: int) -> dict[str, dict[str, float]]:
    """The counters of each kernel, as of its last launch."""
    wanted = [*METRICS.values(), *(STALLS.format(reason) for reason in REASONS)]
    command = [
        *("ncu", "--clock-control", "none", "--csv", "--page", "raw", "--metrics"),
        *(",".join(wanted), sys.executable, "-m", __spec__.name, "--job", name, "--batch", str(n)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode or len(lines) < 3:
        sys.exit(f"ncu failed: {(done.stderr or done.stdout)[-2000:]}")
    header, units, *rows = csv.reader(lines)
    kernels = {}
    for row in rows:
        values = dict(zip(header, row, strict=True))
        unit = dict(zip(header, units, strict=True))["gpu__time_duration.sum"]
        figures = {key: float(values[key].replace(",", "")) for key in wanted if values.get(key)}
        figures["gpu__time_duration.sum"] *= {"ns": 1e-3, "us": 1, "ms": 1e3}.get(unit, 1e-3)
        kernel = values["Kernel Name"].split("(")[0]
        figures["launches"] = kernels.get(kernel, {}).get("launches", 0) + 1 / N_PASSES
        kernels[kernel] = figures
    return kernels


def floor_seconds(kernel: str, model, n: int, ceilings: dict[str, float]) -> float | None:
    """Least seconds of the card for all launches of a pass, if kernel_floors has the kernel."""
    try:
        floor = floor_of(kernel, model, "training step")
    except LookupError:
        return None
    n_items = n if floor.per == "sample" else floor.n_items
    seconds = [floor.n_bytes * n_items / ceilings["copied bytes"]]
    if "half operations" in ceilings:
        seconds.append(2 * products(kernel, model) * n / ceilings["half operations"])
    return max(seconds)


def products(kernel: str, model) -> float:
    """Multiply-adds of tensor cores for a sample in a fused kernel."""
    each = sum(rows * columns for rows, columns in model.network.network.shapes)
    return {"fused_inference": 1, "fused_training": 3}.get(
        "_".join(kernel.split("_")[:2]), 0
    ) * each


def rows_of(name: str, n: int, ceilings: dict[str, float]) -> list[tuple[str, ...]]:
    from numbanet.cuda.driver.compile_only import CompileOnlyDevice

    model = create(name, CompileOnlyDevice(CAPABILITY))
    rows = []
    for kernel, found in profiled(name, n).items():
        seconds = floor_seconds(kernel, model, n, ceilings)
        waits = {why: found.get(STALLS.format(reason), 0) for reason, why in REASONS.items()}
        figures = [f"{found.get(metric, 0):.1f}" for metric in METRICS.values()]
        n_launches = max(round(found["launches"]), 1)
        us = n_launches * found[METRICS["us"]]
        share = "-" if seconds is None else f"{100e6 * seconds / us:.0f} %"
        rows.append((kernel, str(n_launches), *figures, share, max(waits, key=waits.get)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=batch_sizes, default="2^18")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    (n,) = arguments.batch
    if arguments.job:
        job(arguments.job, n)
        return
    if shutil.which("ncu") is None:
        print("ncu was not found: it comes with the CUDA toolkit, and needs a GPU")
        return
    ceilings, report = Ceilings().measure(), {}
    print(", ".join(f"{name}: {rate:.3g}/s" for name, rate in ceilings.items()))
    for name in NAMES:
        report[name] = rows_of(name, n, ceilings)
        lines = [HEADINGS, ("---",) * len(HEADINGS), *report[name]]
        print(f"\n{name}, {n} samples\n")
        print("\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        content = {"batch": n, "ceilings": ceilings, "headings": HEADINGS, "kernels": report}
        path = arguments.output / "gpu_profile.json"
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
