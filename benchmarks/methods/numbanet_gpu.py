"""numbanet on a GPU: the fused kernel, the chain of kernels, and the chain in float32."""

from benchmarks.methods.numbanet_cpu import Numbanet


class OnGPU(Numbanet):
    packages = "numba", "numba-cuda", "cuda-bindings"
    fused = None

    def __init__(self, job, params):
        self.options = {"device": "cuda", "precision": self.precision, "fused": self.fused}
        super().__init__(job, params)
        self.target = self.network.target
        self.stream = self.target.device.stream

    def place(self, array):
        return self.target.from_host(array)

    def wait(self, result):
        self.target.device.synchronize()
        return result


class Fused(OnGPU):
    precision, fused = "float16", True

    def loss_and_gradients(self, inputs, targets):
        return None  # halves: the losses of several steps suffice

    def params(self):
        return None


class Chain(Fused):
    fused = False


class Float32(OnGPU):
    pass
