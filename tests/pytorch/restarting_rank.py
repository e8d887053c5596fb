"""A program of ranks that torchrun starts again after one was killed."""

import os
import signal
import sys
from pathlib import Path

from models import HASH, batch_of, make_config, mlp

import numbanet

N_STEPS, N = 6, 64
TABLE = {**HASH, "log2_hashmap_size": 14, "base_resolution": 64}  # large enough to be divided


def create(comm):
    config = make_config(TABLE, mlp("FullyFusedMLP", 16, 1))
    return numbanet.create_from_config(2, 3, config, device="cpu", comm=comm)


def train(model, comm, path=None):
    """Up to N_STEPS steps on this rank's rows of a batch that changes with each."""
    for step in range(model.trainer.n_steps, N_STEPS):
        rows = comm.rows(N)
        x, y = batch_of("hash", N, seed=step)
        model.trainer.training_step(x[rows], y[rows])
        if path is not None and step % 2 == 1:
            model.save(path)
        if path is not None and step == 4 and is_first_start() and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def is_first_start():
    return os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"


def run(path):
    comm = numbanet.distributed.init(timeout=120, pieces=2)
    exists = Path(path).exists()
    model = numbanet.load(path, device="cpu", comm=comm) if exists else create(comm)
    is_divided = model.trainer.optimizer_state.shape[1] < model.network.n_params
    share = "a part" if is_divided else "all"
    step = model.trainer.n_steps
    sys.stdout.write(f"rank {comm.rank} goes on from step {step}, steps {share}\n")
    sys.stdout.flush()
    train(model, comm, path)


if __name__ == "__main__":
    run(sys.argv[1])
