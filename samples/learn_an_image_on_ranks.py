"""Learn a photograph with several processes, which may end and go on at any time.

    mpirun -n 4 python samples/learn_an_image_on_ranks.py [IMAGE] [CONFIG] [STEPS] [BATCH]
    torchrun --nproc-per-node 2 --max-restarts 3 samples/learn_an_image_on_ranks.py

Each process takes a GPU of its own, or they share the CPU; docs/distributed.md says more. What was
learned is kept in learned_on_ranks.safetensors, from which the next run goes on.
"""

import sys
from pathlib import Path

import numpy as np

import numbanet
from numbanet.app.bilinear import colours_of
from numbanet.app.image_file import read_photograph

HERE, SNAPSHOT = Path(__file__).parent, Path("learned_on_ranks.safetensors")

arguments = dict(enumerate(sys.argv))
photograph = read_photograph(arguments.get(1, HERE / "images/astronaut.png"))
config = numbanet.load_config(arguments.get(2, HERE / "configs/config_hash.json"))
n_steps, batch_size = int(arguments.get(3, 300)), int(arguments.get(4, 1 << 14))

# 1. Meet the others. Started by itself, this process is the only rank.
comm = numbanet.distributed.init()
n = batch_size // comm.size  # each rank's share of a batch

# 2. The same model on each; from its last snapshot, if there is one, with any number of ranks.
if SNAPSHOT.exists():
    model = numbanet.load(SNAPSHOT, comm=comm)
else:
    model = numbanet.create_from_config(2, 3, config, seed=1337, comm=comm)
target = model.network.target
colours_at = colours_of(photograph, target)
first = model.trainer.n_steps
print(f"{comm!r} on {model.network.device}, from step {first}", flush=True)

# 3. Each rank draws its own samples. Those of a step depend on its number alone, so that a training
#    that goes on from a snapshot does what it would have done.
for step in range(first + 1, n_steps + 1):
    positions = target.from_host(comm.rng(step).random((n, 2), dtype=np.float32))
    loss = model.trainer.training_step(positions, colours_at(positions))
    if step % 100 == 0 or step == n_steps:
        model.save(SNAPSHOT)  # all ranks call it, and rank 0 writes
        if comm.rank == 0:
            print(f"step {step}: loss {float(loss):.5f}", flush=True)

# 4. All have the same parameters now, so each can use them.
model.trainer.check_replicas()
if comm.rank == 0:
    centre = np.array([[0.5, 0.5]], np.float32)
    truth = target.to_host(colours_at(target.from_host(centre)))
    print(f"linear light at the centre: {target.to_host(model(centre))}, in truth {truth}")
