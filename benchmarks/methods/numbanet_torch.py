"""numbanet.torch behind the same interface as the rivals, in the two ways of training with it."""

import numbanet.torch  # isort: skip (before PyTorch: how OpenMP's threads wait)
import numpy as np
import torch

from benchmarks.harness.samples import BETA1, BETA2, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.method import Method


class Module(Method):
    """The module as a part of PyTorch: its loss, its autograd, its Adam."""

    skips_zero_gradients = False

    def __init__(self, job, params):
        self.job = job
        parts = job.config["encoding"], job.config["network"]
        self.module = numbanet.torch.NetworkWithInputEncoding(
            job.n_inputs, job.n_outputs, *parts, device="cpu"
        )
        padded = job.padded(params, self.module.params.numel())
        with torch.no_grad():
            self.module.params.copy_(torch.from_numpy(padded))
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=job.epsilon,
            fused=True,
        )  # fmt: skip

    def versions(self):
        return {"torch": torch.__version__, "numbanet": numbanet.__version__}

    def place(self, array):
        return torch.from_numpy(array)

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
        n = self.job.n_network
        with torch.no_grad():  # weight decay of the matrices alone
            params = self.module.params
            params.grad[:n].add_(params[:n], alpha=self.job.l2_reg)
        self.optimizer.step()
        return loss

    @torch.inference_mode()
    def inference(self, positions):
        return self.module(positions)

    def loss_and_gradients(self, positions, targets):
        loss = self.backward(positions, targets).item()
        return loss, self.job.unpadded(self.module.params.grad.numpy())

    def params(self):
        return np.array(self.job.unpadded(self.module.params.detach().numpy()))


class ModuleLoss(Module):
    """The same with `module.loss`, which computes the loss and its gradients in one pass."""

    def loss(self, positions, targets):
        return self.module.loss(positions, targets, "RelativeL2")
