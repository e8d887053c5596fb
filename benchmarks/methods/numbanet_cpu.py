"""numbanet behind the same interface as the rivals: its public API and nothing else."""

import importlib.metadata

import numbanet
from benchmarks.methods.method import Method


class Numbanet(Method):
    options = {"device": "cpu"}  # noqa: RUF012
    packages = ("numba",)

    def __init__(self, job, params):
        model = numbanet.create_from_config(job.n_inputs, job.n_outputs, job.config, **self.options)
        self.job, self.model = job, model
        self.trainer, self.network = model.trainer, model.network
        self.network.params = job.padded(params, self.network.n_params)

    def versions(self):
        versions = {name: importlib.metadata.version(name) for name in self.packages}
        return {"numbanet": numbanet.__version__, **versions}

    def step(self, inputs, targets):
        return self.trainer.training_step(inputs, targets)

    def inference(self, inputs):
        return self.model(inputs)

    def loss_and_gradients(self, inputs, targets):
        loss = float(self.trainer.training_step(inputs, targets, run_optimizer=False))
        return loss, self.job.unpadded(self.numpy(self.network.gradients))

    def params(self):
        return self.job.unpadded(self.numpy(self.network.params))
