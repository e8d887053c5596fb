"""One process of two that train together; test_torch_machinery.py starts it."""

import torch
from models import HASH, mlp
from torch.nn.parallel import DistributedDataParallel

import numbanet.torch as tcnn


def make():
    network = mlp("FullyFusedMLP", 16, 2)
    return tcnn.NetworkWithInputEncoding(2, 3, HASH, network, device="cpu")


def batch():
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0))
    return x, torch.cat([x, x[:, :1] * x[:, 1:]], dim=1)


def train(module, x, targets, n_steps=3):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (module(x) - targets).square().mean().backward()
        optimizer.step()


def run(rank, world_size, folder):
    """Train on this process's share of the batch, and write the parameters to a file."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    module = make()
    with torch.no_grad():
        module.params.add_(rank)  # which DistributedDataParallel has to undo
    x, targets = (each.chunk(world_size)[rank] for each in batch())
    train(DistributedDataParallel(module), x, targets)
    torch.save(module.params.detach(), f"{folder}/params.{rank}")
    torch.distributed.destroy_process_group()
