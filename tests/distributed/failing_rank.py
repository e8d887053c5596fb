"""A program of three ranks, one of which fails after a snapshot; test_launches.py starts it."""

import os
import signal
import sys
import time

from models import batch_of, create

import numbanet


def fail(way):
    if way == "raises":
        raise ValueError("what this rank found")
    if way == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def run(way, path):
    comm = numbanet.distributed.init(timeout=60 if way == "raises" else 2)
    model = create("one_blob", comm=comm)
    x, y = batch_of("one_blob", 64)
    rows = comm.rows(64)
    for k in range(100):
        if k == 3:
            model.save(path)
        if k > 3 and comm.rank == 1:
            fail(way)
        model.trainer.training_step(x[rows], y[rows])


if __name__ == "__main__":
    run(*sys.argv[1:])
