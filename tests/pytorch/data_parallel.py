"""Two processes that train together, through gloo or NCCL, and what one of them would train."""

import os

import torch
from laws import assert_close
from models import HASH, mlp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import numbanet.torch as tcnn


def make(device="cpu"):
    network = mlp("FullyFusedMLP", 16, 2)
    return tcnn.NetworkWithInputEncoding(2, 3, HASH, network, dtype=torch.float32, device=device)


def batch(device="cpu"):
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0))
    return x.to(device), torch.cat([x, x[:, :1] * x[:, 1:]], dim=1).to(device)


def make_deep(device="cpu"):
    """A module of numbanet within another one, which can be sharded."""
    torch.manual_seed(0)
    return torch.nn.Sequential(make(), torch.nn.Linear(3, 3)).to(device)


def train_sharded(rank, world_size, device):
    """The parameters of both parts, of which the module's own are on every rank."""
    whole = make_deep(device)
    fully_shard(
        whole, mesh=init_device_mesh(device.type, (world_size,)),
        ignored_params=set(whole[0].parameters()),
    )  # fmt: skip
    x, targets = (each.chunk(world_size)[rank] for each in batch(device))
    train(whole, x, targets, replicated=list(whole[0].parameters()))
    return whole[0].params.detach(), whole[1].weight.full_tensor().detach()


def train_sharded_by_its_predecessor(rank, world_size, device):
    """As train_sharded, by FullyShardedDataParallel with the module ignored."""
    deep = make_deep(device)
    whole = FullyShardedDataParallel(
        deep, ignored_modules=[deep[0]], use_orig_params=True, device_id=device
    )
    x, targets = (each.chunk(world_size)[rank] for each in batch(device))
    train(whole, x, targets, replicated=list(deep[0].parameters()))
    with FullyShardedDataParallel.summon_full_params(whole):
        return deep[0].params.detach().clone(), deep[1].weight.detach().clone()


def train_in_buckets(rank, world_size, device):
    """A split module whose parts are in buckets of their own, which gradients are views of."""
    module = make(device).split_parts()
    assert len(list(module.parameters())) > 1
    replica = DistributedDataParallel(module, bucket_cap_mb=1e-3, gradient_as_bucket_view=True)
    halves = [each.chunk(world_size)[rank].chunk(2) for each in batch(device)]
    optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        with replica.no_sync():  # the second half's gradients are added, and averaged with them
            loss_of(replica, halves, 0).backward()
        loss_of(replica, halves, 1).backward()
        optimizer.step()
    return (module.params.detach(),)


def loss_of(module, halves, k):
    x, targets = (each[k] for each in halves)
    return (module(x) - targets).square().mean() / 2


def train(module, x, targets, n_steps=3, replicated=()):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (module(x) - targets).square().mean().backward()
        for parameter in replicated:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()
        optimizer.step()


WAYS = train_sharded, train_sharded_by_its_predecessor, train_in_buckets


def run(rank, world_size, folder, backend="gloo"):
    """Train on this process's share of the batch, and write the parameters to a file."""
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    module = make(device)
    with torch.no_grad():
        module.params.add_(rank)  # which DistributedDataParallel has to undo
    x, targets = (each.chunk(world_size)[rank] for each in batch(device))
    train(DistributedDataParallel(module), x, targets)
    torch.save(module.params.detach(), f"{folder}/params.{rank}")
    for way in WAYS:
        torch.save(way(rank, world_size, device), f"{folder}/{way.__name__}.{rank}")
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the interpreter, whose end then aborts the process


def check(folder, backend="gloo"):
    """Two processes train the same parameters, which are those of one on the whole batch."""
    torch.multiprocessing.spawn(run, args=(2, str(folder), backend), nprocs=2)
    alone = make()
    initial = alone.params.detach().clone()
    train(alone, *batch())
    deep = make_deep()
    before = [deep[0].params.detach().clone(), deep[1].weight.detach().clone()]
    train(deep, *batch())
    whole = [initial], [alone.params.detach()]
    sharded = before, [deep[0].params.detach(), deep[1].weight.detach()]
    expected = {"params": whole, "train_in_buckets": whole}
    for name in ("params", *(way.__name__ for way in WAYS)):
        found = [torch.load(f"{folder}/{name}.{rank}", map_location="cpu") for rank in range(2)]
        if name == "params":
            found = [[each] for each in found]
        for first, second, start, end in zip(*found, *expected.get(name, sharded), strict=True):
            assert torch.equal(first, second), name
            assert_close(first - start, end - start, 1e-3)
