"""Dr.Jit on its CUDA backend: the CPU's rival, in float32, for the hash grid only."""

import os

os.environ["DRJIT_BACKEND"] = "cuda"

import drjit
from rivals.drjit_rival import DrJitTensors


class DrJit(DrJitTensors):
    precision = "float32"
    skips_zero_gradients = True
    stream = None  # a stream of its own

    def __init__(self, job, params):
        if job.encoding != "HashGrid":
            raise NotImplementedError("for Dr.Jit only the hash grid is written")
        super().__init__(params)

    def number(self, loss):
        return loss.array[0]

    def versions(self):
        return {"drjit": drjit.__version__}
