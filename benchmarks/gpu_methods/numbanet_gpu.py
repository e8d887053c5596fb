"""numbanet: the fused kernel, the chain of kernels, and the chain in float32."""

import importlib.metadata

import numpy as np

import numbanet


class Fused:
    precision, fused = "float16", True
    skips_zero_gradients = True

    def __init__(self, job, params):
        options = {"device": "cuda", "precision": self.precision, "fused": self.fused}
        model = numbanet.create_from_config(job.n_inputs, job.n_outputs, job.config, **options)
        network = model.network
        network.params = job.padded(params, network.n_params)
        self.trainer, self.target = model.trainer, network.target
        self.stream = self.target.device.stream

    def versions(self):
        names = "numba", "numba-cuda", "cuda-bindings"
        versions = {name: importlib.metadata.version(name) for name in names}
        return {"numbanet": numbanet.__version__, **versions}

    def place(self, array):
        return self.target.from_host(array)

    def wait(self, result):
        self.target.device.synchronize()
        return result

    def step(self, inputs, targets):
        return self.trainer.training_step(inputs, targets)

    def inference(self, inputs):
        return self.trainer.inference(inputs)

    def numpy(self, outputs):
        return np.asarray(outputs)


class Chain(Fused):
    fused = False


class Float32(Fused):
    precision, fused = "float32", None
