"""numbanet.torch behind the same interface as the rivals, in the two ways of training with it."""

import numpy as np
from image_job import BETA1, BETA2, CONFIG, EPSILON, L2_REG, LEARNING_RATE, LOSS_EPSILON, N_NETWORK
from numbanet_method import Numbanet

import numbanet.torch as tcnn  # isort: skip (before PyTorch: how OpenMP's threads wait)
import torch


class Module(Numbanet):
    """The module as a part of PyTorch: its loss, its autograd, its Adam."""

    skips_zero_gradients = False

    def __init__(self, params):
        self.module = tcnn.NetworkWithInputEncoding(
            2, 3, CONFIG["encoding"], CONFIG["network"], device="cpu"
        )
        self.n_padding = self.module.params.numel() - params.size
        with torch.no_grad():
            self.module.params.copy_(torch.from_numpy(self.padded(params)))
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON,
            fused=True,
        )  # fmt: skip

    def versions(self):
        return {"torch": torch.__version__, **super().versions()}

    def place(self, array):
        return torch.from_numpy(array)

    def wait(self, result):
        return result if result.ndim else result.item()

    def loss(self, positions, targets):
        y = self.module(positions)
        return ((y - targets) ** 2 / (y.detach() ** 2 + LOSS_EPSILON)).mean()

    def backward(self, positions, targets):
        self.optimizer.zero_grad()
        loss = self.loss(positions, targets)
        loss.backward()
        return loss.detach()

    def step(self, positions, targets):
        loss = self.backward(positions, targets)
        with torch.no_grad():  # weight decay of the matrices alone
            params = self.module.params
            params.grad[:N_NETWORK].add_(params[:N_NETWORK], alpha=L2_REG)
        self.optimizer.step()
        return loss

    @torch.inference_mode()
    def inference(self, positions):
        return self.module(positions)

    def numpy(self, outputs):
        return outputs.numpy()

    def loss_and_gradients(self, positions, targets):
        loss = self.backward(positions, targets).item()
        return loss, self.unpadded(self.module.params.grad.numpy())

    def params(self):
        return np.array(self.unpadded(self.module.params.detach().numpy()))


class ModuleLoss(Module):
    """The same with `module.loss`, which computes the loss and its gradients in one pass."""

    def loss(self, positions, targets):
        return self.module.loss(positions, targets, "RelativeL2")
