"""numbanet.to_matrices and from_matrices for modules with a network."""

import torch

from numbanet.matrices import Held, held_by
from numbanet.torch import descriptions
from numbanet.torch.modules import TrainableModule


@held_by.register
def _(module: TrainableModule) -> Held:
    def assign(flat):
        with torch.no_grad():
            module.params.copy_(torch.from_numpy(flat))

    encoding, network = descriptions.components(module.native_tcnn_module.description)
    params = module.params.detach().to("cpu", torch.float32, copy=True).numpy()
    return Held(encoding, network, params, assign)
