"""Dr.Jit on its CUDA backend: the CPU's rival, in float32, for the hash grid only."""

import os

os.environ["DRJIT_BACKEND"] = "cuda"

import drjit

from benchmarks.methods.drjit_cpu import DrJitTensors


class DrJit(DrJitTensors):
    def versions(self):
        return {"drjit": drjit.__version__}
