"""numbanet behind the same interface as the rivals: its public API and nothing else."""

import numpy as np
from image_job import CONFIG, N_NETWORK

import numbanet


class Numbanet:
    def __init__(self, params):
        self.model = numbanet.create_from_config(2, 3, CONFIG, device="cpu")
        own = self.model.network.params
        self.n_padding = own.size - params.size  # rows 4 to 16 of the output matrix
        own[:] = self.padded(params)

    def versions(self):
        import numba

        return {"numbanet": numbanet.__version__, "numba": numba.__version__}

    def padded(self, params):
        network, table = np.split(params, [N_NETWORK])
        return np.concatenate([network, np.zeros(self.n_padding, np.float32), table])

    def unpadded(self, params):
        return np.delete(params, np.s_[N_NETWORK : N_NETWORK + self.n_padding])

    def place(self, array):
        return array

    def wait(self, result):
        return result if isinstance(result, np.ndarray) else float(result)

    def step(self, positions, targets):
        return self.model.trainer.training_step(positions, targets)

    def inference(self, positions):
        return self.model.trainer.inference(positions)

    def numpy(self, outputs):
        return outputs

    def loss_and_gradients(self, positions, targets):
        value = self.model.trainer.training_step(positions, targets, run_optimizer=False)
        return float(value), self.unpadded(self.model.network.gradients)

    def params(self):
        return self.unpadded(self.model.network.params)
