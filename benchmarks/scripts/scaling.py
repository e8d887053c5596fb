"""Measure how a training step scales over ranks: as many samples for each, and the same in all.

    mpirun -n 4 python -m benchmarks.scripts.scaling --device cpu [--models NAME,...]
    torchrun --nproc-per-node 2 -m benchmarks.scripts.scaling [--batches 2^18,2^20]
        [--equal-batches]

In turns, each rank trains a model alone and all train one together. Wall clock, devices
synchronised at both ends of a round, the slowest rank; medians in microseconds. Weak scaling is the
time of a step alone over that of one together with as many samples for each rank; strong scaling
that of one in which the ranks share these samples. Bytes are what a rank has to send; the link's
floor is the time these take at the rate of a large sum. Where ranks gather copies in halves
(docs/design/ranks.md), `float32` is a step together that gathers the parameters instead, because
somebody holds them. What is said of 8 ranks is an estimate.

Each way has a trainer of its own, which is warm when its first round begins. On GPUs a round has
ROUND_ON_GPU steps, so that the hosts' exchange (docs/distributed.md) takes part as it does in a
training.
"""

import argparse
import os
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.real_models import MODELS, create
from benchmarks.harness.turns import in_turns, microseconds
from numbanet.communicator import even_bounds
from numbanet.replicas import MOST_UNASKED

ROUND, MOST_CALLS = 1 << 23, 50  # samples of a round on CPUs
ROUND_ON_GPU = MOST_UNASKED + 1
MOST_ERROR = 0.05
QUANTUM = 32  # parameters, see numbanet/cuda/optimizer/over_ranks.py
LARGE = {"cpu": 1 << 22, "cuda": 1 << 26}  # floats of a sum that shows the link's rate


def synchronize(target):
    if target.name != "cpu":
        target.device.synchronize()


def slowest(comm, target, n_calls, call):
    """Microseconds of one call on the slowest rank."""
    synchronize(target)
    comm.barrier()
    mine = microseconds(call, n_calls, partial(synchronize, target))
    return float(comm.gather(np.array([mine])).max())


def rate_of_link(comm, target):
    """Bytes a microsecond that a rank sends in a large sum."""
    n = LARGE[target.name.partition(":")[0]]
    if target.name == "cpu":
        values = np.ones(n, np.float32)
        call = partial(comm.reduce, values)
    else:
        from numbanet.cuda.ranks.collectives import collectives

        source, total = target.zeros(n), target.zeros(n)
        call = partial(collectives(target.device, comm).sum, source, total)
    call()
    times = [slowest(comm, target, 5, call) for _ in range(3)]
    return 2 * (comm.size - 1) / comm.size * 4 * n / min(times)


def exchanges(comm, target, n):
    """Microseconds of each exchange of a divided model of n parameters, by itself."""
    halves = -(-n // 2)  # as many bytes, in float32
    bounds, in_halves = (even_bounds(k, comm.size, QUANTUM) for k in (n, halves))
    room = comm.size * (bounds[1] + QUANTUM)
    values, part = target.zeros(room)[:n], target.zeros(bounds[1])
    if target.name == "cpu":
        calls = {"reduce-scatter": partial(comm.reduce_part, values, bounds)}
        fill = comm.fill
    else:
        from numbanet.cuda.ranks.collectives import collectives

        link = collectives(target.device, comm)
        calls = {"reduce-scatter": partial(link.sum_part, values, part, bounds)}
        fill = link.fill
    calls["all-gather in float32"] = partial(fill, values, bounds)
    calls["all-gather in halves"] = partial(fill, values[:halves], in_halves)
    times = in_turns(partial(slowest, comm, target, 20), calls)
    return {name: float(np.median(each)) for name, each in times.items()}


def bytes_of_step(many, n_ranks):
    """Bytes that a rank sends for the gradients, and for the parameters or their copies."""
    n_params = many.network.n_params
    each = 4 + (2 if many.network.parameters.is_divided else 4)
    return (n_ranks - 1) / n_ranks * each * n_params


def verify(comm, one, many, name):
    """Exit unless a step together is the step on all samples, with equal bits on all ranks."""
    rng = np.random.default_rng(1)
    x, y = (rng.random((1 << 12, k), dtype=np.float32) for k in MODELS[name][:2])
    rows = comm.rows(len(x))
    losses = [
        float(one.trainer.training_step(x, y)),
        float(many.trainer.training_step(x[rows], y[rows])),
    ]
    to_host = one.network.target.to_host
    expected = to_host(one.network.gradients)
    found = comm.reduce(to_host(many.network.gradients))
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not (error < MOST_ERROR and abs(losses[0] - losses[1]) < MOST_ERROR * losses[0]):
        raise SystemExit(f"{name}: gradients are off by {error:.1e}, losses are {losses}")
    many.trainer.check_replicas()
    return error


def steps_of_round(target, n):
    return max(min(MOST_CALLS, ROUND // n), 3) if target.name == "cpu" else ROUND_ON_GPU


def measure(comm, name, sizes, device, link):
    one = create(MODELS[name], alone_on(device, comm))
    many = create(MODELS[name], device, comm=comm)
    target, n_ranks = many.network.target, comm.size
    error = verify(comm, one, many, name)
    n_params, n_own = many.network.n_params, many.trainer.optimizer_state.shape[1]
    n_bytes = bytes_of_step(many, n_ranks)
    of_each = exchanges(comm, target, n_params) if n_own < n_params else {}
    is_divided = many.network.parameters.is_divided
    if comm.rank == 0:
        print(
            f"{name}: {n_params} parameters, state of {n_own}; verified to {error:.0e}; "
            f"{n_bytes / 2**20:.1f} MiB a step, {n_bytes / link:.0f} us at the link's rate"
            + "".join(f"; {what} {time:.0f} us" for what, time in of_each.items())
        )
    rng, ways = np.random.default_rng(comm.rank), ["together", "shared"]
    ways += ["float32"] if is_divided else []
    for n in sizes:
        batch, share = (
            [target.from_host(rng.random((size, k), np.float32)) for k in MODELS[name][:2]]
            for size in (n, n // n_ranks)
        )
        models = {"alone": create(MODELS[name], alone_on(device, comm))}
        models |= {way: create(MODELS[name], device, comm=comm) for way in ways}
        held = models["float32"].network.params if is_divided else None
        calls = {
            way: partial(model.trainer.training_step, *(share if way == "shared" else batch))
            for way, model in models.items()
        }
        times = in_turns(partial(slowest, comm, target, steps_of_round(target, n)), calls)
        del held
        alone, together, shared, *whole = (float(np.median(times[way])) for way in calls)
        at_8 = alone + (together - alone) * (7 / 8) / ((n_ranks - 1) / n_ranks)
        if comm.rank == 0:
            print(
                f"{name:12} 2^{n.bit_length() - 1:<3} alone {alone:9.1f}, "
                f"together {together:9.1f}: weak {alone / together:5.1%}; "
                f"shared {shared:9.1f}: strong {alone / shared:.2f} of {n_ranks}; "
                f"estimate for 8 ranks: weak {alone / at_8:.0%}"
                + "".join(f"; float32 {time:9.1f}" for time in whole),
                flush=True,
            )


def alone_on(device, comm):
    """The device that this rank has, for a model of its own."""
    from numbanet.targets import device_of_rank

    return device_of_rank(device, comm)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["image", "field"])
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^16,2^18,2^20"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--equal-batches", action="store_true", help="see docs/distributed.md")
    options = parser.parse_args()
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    comm = numbanet.distributed.init(equal_batches=options.equal_batches)
    if comm.size == 1:
        raise SystemExit("needs several ranks: start it with mpirun, srun or torchrun")
    target = create(MODELS["image"], options.device, comm=comm).network.target
    link = rate_of_link(comm, target)
    if comm.rank == 0:
        rate = f"a large sum sends {link / 1e3:.2f} GB/s a rank"
        print(f"{comm.size} ranks on {target.name}; {rate}", flush=True)
    for name in options.models:
        measure(comm, name, options.batches, options.device, link)


if __name__ == "__main__":
    main()
