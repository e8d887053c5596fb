"""Measure a step of Poisson's equation: the Laplacian of a network, and a loss of it.

    python -m benchmarks.scripts.laplacian [--device cpu] [--widths 32,64] [--batches 2^10,2^12]

Values, gradients and Laplacians of a Tanh network of three hidden layers at points of the plane,
and the gradient of the mean of (Laplacian - f)^2 for its parameters: `model.derivatives` with
`backward`, in turns with PyTorch's autograd, which differentiates twice by the inputs and once by
the parameters. No optimizer. Both gradients are compared before. Wall clock, a GPU synchronised at
both ends; medians.
"""

import argparse
import sys
from functools import partial

import numbanet.torch  # isort: skip (before PyTorch: see docs/migrating.md, speed)
import numpy as np
import torch

import numbanet
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.turns import in_turns, microseconds

N_HIDDEN_LAYERS = 3
N_DIMS = 2
MOST_DIFFERENCE = 1e-3  # of the gradients, relative


def config(width):
    network = {
        "otype": "CutlassMLP",
        "n_neurons": width,
        "n_hidden_layers": N_HIDDEN_LAYERS,
        "activation": "Tanh",
    }
    return {"encoding": {"otype": "Identity"}, "network": network}


class Numbanet:
    """The step with numbanet; f and what becomes of the Laplacian are PyTorch's on a GPU."""

    def __init__(self, width, x, f, device):
        self.network = numbanet.create_from_config(N_DIMS, 1, config(width), device=device).network
        self.on_gpu = x.is_cuda
        self.x = self.network.target.from_host(x.cpu().numpy())
        self.f = f if self.on_gpu else f.numpy()

    def step(self):
        found = self.network.derivatives(self.x)
        laplacian = torch.from_dlpack(found.laplacian) if self.on_gpu else found.laplacian
        found.backward(dl_dlaplacian=2 / len(self.f) * (laplacian - self.f))

    def gradients(self):
        return np.asarray(self.network.gradients)


class Autograd:
    """The step with PyTorch: the same weights, the padded inputs as biases of the first layer."""

    def __init__(self, network, x, f):
        self.x, self.f = x.clone().requires_grad_(), f
        self.weights = [
            torch.from_numpy(np.array(each)).to(x.device).requires_grad_()
            for each in network.named_parameters().values()
        ]

    def network(self, x):
        first, *hidden, last = self.weights
        y = torch.tanh(x @ first[:, :N_DIMS].T + first[:, N_DIMS:].sum(dim=1))
        for each in hidden:
            y = torch.tanh(y @ each.T)
        return y @ last[:1].T

    def step(self):
        for each in self.weights:
            each.grad = None
        u = self.network(self.x)
        (slope,) = torch.autograd.grad(u.sum(), self.x, create_graph=True)
        laplacian = 0
        for d in range(N_DIMS):
            (second,) = torch.autograd.grad(slope[:, d].sum(), self.x, create_graph=True)
            laplacian = laplacian + second[:, d : d + 1]
        (laplacian - self.f).square().mean().backward(inputs=self.weights)

    def gradients(self):
        return np.concatenate([each.grad.cpu().numpy().reshape(-1) for each in self.weights])


def measure(width, n, device):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, N_DIMS, generator=generator).to(device)
    f = torch.sin(3 * x).prod(dim=1, keepdim=True)
    ours = Numbanet(width, x, f, device)
    theirs = Autograd(ours.network, x, f)
    for each in (ours, theirs):
        each.step()
    expected = theirs.gradients()
    difference = np.linalg.norm(ours.gradients() - expected) / np.linalg.norm(expected)
    if not difference < MOST_DIFFERENCE:
        sys.exit(f"the gradients differ by {difference:.1e}")
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    timed = partial(microseconds, n_calls=20, synchronize=synchronize)
    times = in_turns(timed, {"numbanet": ours.step, "autograd": theirs.step})
    taken = {name: float(np.median(each)) for name, each in times.items()}
    print(
        f"{device}, {N_HIDDEN_LAYERS} layers of {width}, {n} points: numbanet "
        f"{taken['numbanet']:.0f} us a step, PyTorch {taken['autograd']:.0f} us, "
        f"{taken['autograd'] / taken['numbanet']:.2f} times; gradients differ by {difference:.1e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--widths", type=batch_sizes, default=[32, 64])
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^10,2^12"))
    options = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads on the host")
    for width in options.widths:
        for n in options.batches:
            measure(width, n, options.device)


if __name__ == "__main__":
    main()
