"""The reference mode: the slow twins in float64 in the place of the engines.

PyTorch's operators then compute in float64, so that gradcheck can judge how derivatives are wired
up. That the engines compute what the twins do, other tests say.
"""

import naive
import numpy as np
import torch


class TwinEvaluator:
    """Has the methods of numbanet.torch.evaluator.Evaluator.

    Args:
        n_input_dims, config: of the model; without "network", of its encoding alone.
    """

    def __init__(self, n_input_dims, n_output_dims, config):
        if "network" in config:
            self.twin = naive.Model(n_input_dims, n_output_dims, config)
            self.n_params = self.twin.n_params
            self.forward_twin = self.twin.inference
        else:
            self.twin = naive.encoding(config["encoding"], n_input_dims)
            self.n_params = self.twin.n_params
            self.forward_twin = self.twin.forward

    def twin_backward(self, x, params, dl_dy):
        if isinstance(self.twin, naive.Model):
            return self.twin.backward(x, params, dl_dy)
        return (
            self.twin.backward_input(x, params, dl_dy),
            self.twin.backward_params(x, params, dl_dy),
        )

    def forward(self, x, params, keeps, *, hidden=True):
        return as_tensor(self.forward_twin(*arrays(x, params))), x.new_empty(0)

    def backward(self, dl_dy, x, params, kept, wants_x, wants_params):
        found = self.twin_backward(*arrays(x, params, dl_dy))
        wanted = wants_x, wants_params
        return tuple(
            as_tensor(value) if want else x.new_empty(0)
            for value, want in zip(found, wanted, strict=True)
        )

    def double_backward(self, dl_dy, x, params, dl_ddx, wants_params):
        found = self.twin.double_backward(*arrays(x, params, dl_dy, dl_ddx))
        return tuple(map(as_tensor, found))


def arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def as_tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))
