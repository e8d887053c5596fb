"""Memory and CPU time of the kernels that one more model needs, compiled and read from disk.

    python -m benchmarks.scripts.compiled_code

A process trains config_hash for a step and infers from it, on the CPU; then it does so with one
level less, and what this adds is counted: resident memory and CPU time. The first process compiles
into an empty folder, from which the next ones read. Needs Linux, whose /proc tells the memory.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import numbanet
from benchmarks.harness.samples import HASH

N_READING = 5  # processes, whose median counts


def used() -> tuple[float, float]:
    """Resident MiB and CPU milliseconds of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1e3 * time.process_time()


def train_and_infer(n_levels: int) -> None:
    sizes = {"n_levels": n_levels, "log2_hashmap_size": 6}  # tables of little memory: data alone
    config = {**HASH, "encoding": {**HASH["encoding"], **sizes}}
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    x, y = np.zeros((256, 2), np.float32), np.zeros((256, 3), np.float32)
    model.trainer.training_step(x, y)
    model(x)


def child() -> None:
    n_levels = HASH["encoding"]["n_levels"]
    for _ in range(3):
        train_and_infer(n_levels)
    before = used()
    train_and_infer(n_levels - 1)
    print(json.dumps(np.subtract(used(), before).tolist()))


def added(folder: str) -> list[float]:
    """MiB and milliseconds that the second model added to a process."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--child"],
        env={**os.environ, "NUMBANET_CACHE_DIR": folder},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("compiled: {:.1f} MiB, {:.0f} ms".format(*added(folder)))
        found = [added(folder) for _ in range(N_READING)]
        print("read: {:.1f} MiB, {:.0f} ms".format(*np.median(found, axis=0)))
        sizes = [each.stat().st_size for each in Path(folder).iterdir()]
        print(f"files of both: {len(sizes)}, {sum(sizes) / 2**20:.2f} MiB")


if __name__ == "__main__":
    child() if "--child" in sys.argv else main()
