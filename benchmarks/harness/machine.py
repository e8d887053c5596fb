"""Machine that a benchmark ran on."""

import os
import platform
import subprocess
import sys
from pathlib import Path


def machine():
    lines = lines_of("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "n_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "load_at_start": os.getloadavg()[0] if os.name == "posix" else None,
    }


def lines_of(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def card():
    from numbanet.targets import cuda_device

    device = cuda_device(0)
    found = {
        "name": device.name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "n_multiprocessors": device.n_multiprocessors,
        "memory": device.total_memory,
        "driver": "unknown",
    }
    query = ["nvidia-smi", "--id=0", "--format=csv,noheader", "--query-gpu=driver_version"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        found["driver"] = answer.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # no nvidia-smi; the rest is known
    return found
