"""What the fused kernels do for a sample of an image, counted: 16 levels in 2-D, 32-64-64-3.

Counts of a tile alone: a batch is repeated within the same blocks, and what it takes more is what
the repetition takes, without weights that are read and sums that are written once per block.
"""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet
from emulator.device import EmulatedDevice
from numbanet.cuda.fused.shapes import TRAINING_GROUPS

CONFIG = Path(__file__).parents[2] / "samples" / "configs" / "config_hash.json"
N_LEVELS, N_CORNERS = 16, 4
LANES, FRAGMENT = 32, 16
# For 16 samples: of the network, and two for each level, which serve 32.
MOST_MMA = {"inference": 56 + N_LEVELS, "training": 168 + N_LEVELS}
# Vector and matrix accesses to shared memory; those to gradients go wherever the samples lie.
ORDERLY = ("ldmatrix", "stmatrix", "ld.shared.v4", "st.shared.v4")


class Counted:
    """What some samples took, by opcode."""

    def __init__(self, once, twice, n_samples):
        self.n_samples = n_samples
        self.mma, self.barriers = twice.mma - once.mma, twice.barriers - once.barriers
        self.stored_sectors = twice.global_store_sectors - once.global_store_sectors
        self.by_opcode = {}
        for key, counter in twice.lines.items():
            _, _, text = key
            opcode = next(word for word in text.split() if not word.startswith("@"))
            before, found = once.lines.get(key, {}), self.by_opcode.setdefault(opcode, Counter())
            for name, value in counter.items():
                found[name] += value - before.get(name, 0)

    def of(self, *prefixes):
        """The sum over all opcodes that begin so."""
        chosen = [each for key, each in self.by_opcode.items() if key.startswith(prefixes)]
        return sum(chosen, Counter())

    def per_sample(self, *prefixes):
        """How many times a thread executes them for a sample; all lanes take part."""
        return self.of(*prefixes)["requests"] * LANES / self.n_samples


@cache
def model():
    device = EmulatedDevice(racecheck=None)
    device.n_multiprocessors = 1
    config = numbanet.load_config(CONFIG)
    return numbanet.create_from_config(2, 3, config, device=device, precision="float16")


@cache
def counted(what):
    fused = model().network.engine.fused
    shape = {"inference": fused.inference_shape, "training": fused.training_shape}[what]
    n_samples = shape.layout.n_threads * shape.n_started
    rng = np.random.default_rng(0)
    x, y = rng.random((n_samples, 2), np.float32), rng.random((n_samples, 3), np.float32)
    found, device = [], model().network.target.device
    for times in (1, 2):
        device.counters = {}
        inputs, targets = np.tile(x, (times, 1)), np.tile(y, (times, 1))
        if what == "training":
            model().trainer.training_step(inputs, targets, run_optimizer=False)
        else:
            model().trainer.inference(inputs)
        (counters,) = (each for name, each in device.counters.items() if name.startswith("fused"))
        found.append(counters)
    return Counted(*found, n_samples)


passes = pytest.mark.parametrize("what", ["inference", "training"])


@passes
def test_tensor_core_instructions(what):
    assert 0 < counted(what).mma * FRAGMENT / counted(what).n_samples <= MOST_MMA[what]


@passes
def test_no_bank_conflicts(what):
    found = counted(what).of(*ORDERLY)
    assert found["shared_wavefronts"] > 0
    assert found["shared_conflicts"] == 0


@passes
def test_one_gather_for_each_corner(what):
    """And two inputs; for training these once more, and targets, three for a lane's rows."""
    assert counted(what).per_sample("ld.global.b32", "ld.global.u32") == N_LEVELS * N_CORNERS


@passes
def test_activations_stay_on_the_chip(what):
    """Nothing is stored but, for inference, three outputs."""
    counts = counted(what)
    assert counts.per_sample("ld.global.f32") <= {"inference": 2, "training": 12}[what]
    n_bytes = 32 * counts.stored_sectors / counts.n_samples
    assert n_bytes <= {"inference": 24, "training": 0}[what]
    assert not counts.of("st.local", "ld.local")


def test_reductions_to_global_memory():
    """One for each corner of a level whose gradients do not fit the block's memory."""
    engine = model().network.engine
    n_private = engine.fused.training_shape.layout.n_private
    assert n_private == 4
    assert 0 < counted("training").per_sample("red.global") <= (N_LEVELS - n_private) * N_CORNERS
    assert counted("inference").per_sample("red") == 0


def test_barriers():
    """Two for each matrix, in training; none in inference."""
    assert counted("training").barriers / TRAINING_GROUPS == 2 * 3
    assert counted("inference").barriers == 0
