"""One process of two that train together; test_torch_machinery.py starts it."""

import torch
from models import HASH, mlp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import numbanet.torch as tcnn


def make():
    network = mlp("FullyFusedMLP", 16, 2)
    return tcnn.NetworkWithInputEncoding(2, 3, HASH, network, device="cpu")


def batch():
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0))
    return x, torch.cat([x, x[:, :1] * x[:, 1:]], dim=1)


def make_deep():
    """A module of numbanet within another one, which can be sharded."""
    torch.manual_seed(0)
    return torch.nn.Sequential(make(), torch.nn.Linear(3, 3))


def train_sharded(rank, world_size):
    """The parameters of both parts, of which the module's own are on every rank."""
    whole = make_deep()
    fully_shard(
        whole, mesh=init_device_mesh("cpu", (world_size,)),
        ignored_params=set(whole[0].parameters()),
    )  # fmt: skip
    x, targets = (each.chunk(world_size)[rank] for each in batch())
    train(whole, x, targets, replicated=list(whole[0].parameters()))
    return whole[0].params.detach(), whole[1].weight.full_tensor().detach()


def train(module, x, targets, n_steps=3, replicated=()):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (module(x) - targets).square().mean().backward()
        for parameter in replicated:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()
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
    torch.save(train_sharded(rank, world_size), f"{folder}/sharded.{rank}")
    torch.distributed.destroy_process_group()
