"""Start processes at once on an empty cache, flip bits in it, and resume trainings through it.

    python -m benchmarks.scripts.reliability_cache [--starts 20] [--flips 400] [--models 20]

Every process has its own memory, so that a crash is found and ends nothing else. Whatever is not as
promised ends the run with a message.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import numbanet
from numbanet import code_store
from numbanet.random import Pcg32

SMALL = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam"},
    "encoding": {"otype": "Identity"},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
}
ENCODINGS = (
    {"otype": "Identity"},
    {"otype": "Frequency", "n_frequencies": 3},
    {"otype": "OneBlob", "n_bins": 8},
    {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 8},
    {"otype": "TriangleWave", "n_frequencies": 3},
)
OPTIMIZERS = (
    {"otype": "Adam"},
    {"otype": "SGD"},
    {"otype": "Novograd"},
    {"otype": "Shampoo"},
    {"otype": "Batched", "batch_size_multiplier": 2},
    {"otype": "EMA", "nested": {"otype": "Shampoo"}},
    {"otype": "Lookahead", "n_steps": 2},
    {"otype": "Average", "n_samples": 3},
    {"otype": "ExponentialDecay", "decay_start": 2, "decay_interval": 1},
)
ACTIVATIONS = ("ReLU", "Sigmoid", "Tanh", "SiLU", "Sine")
LOSSES = ("L1", "L2", "RelativeL2", "Huber", "LogL1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.starts:
            start_at_once(Path(folder) / "starts", arguments.starts)
        if arguments.flips:
            flip_bits(Path(folder) / "flips", arguments.flips)
        if arguments.models:
            resume(Path(folder), arguments.models)


# In a child


def work(config: str, n_steps: str, loads: str = "", saves: str = "") -> None:
    """Train, from a snapshot or from the start, and print a digest of the parameters.

    The snapshot, where one is asked for, is of half the steps.
    """
    if loads:
        model = numbanet.load(loads, device="cpu")
    else:
        model = numbanet.create_from_config(2, 3, json.loads(config), device="cpu")
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 2), np.float32), rng.random((100, 3), np.float32)
    for step in range(int(n_steps)):
        if saves and step == int(n_steps) // 2:
            model.save(saves)
        model.trainer.training_step(x, y)
    print(hashlib.sha256(np.ascontiguousarray(model.network.params)).hexdigest())


def started(cache: Path, config: dict, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", __spec__.name, "--child", json.dumps(config)]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env={**os.environ, "NUMBANET_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> str:
    out, err = process.communicate()
    check(process.returncode == 0, f"exit status {process.returncode}: {err[-300:]}")
    unexpected = [line for line in err.splitlines() if not line.startswith("numbanet compiled ")]
    check(not unexpected, f"on standard error: {' '.join(unexpected)[-300:]}")
    return out.strip()


# Starts


def start_at_once(cache: Path, n: int) -> None:
    answers = {answer(each) for each in [started(cache, SMALL, 4) for _ in range(n)]}
    names = os.listdir(cache)
    check(len(answers) == 1, f"{len(answers)} results")
    left = [name for name in names if name.endswith((".part", code_store.LOCK_SUFFIX))]
    check(not left, f"files are left: {left}")
    before = {name: (cache / name).read_bytes() for name in names}
    check(answer(started(cache, SMALL, 4)) in answers, "another result from the warm cache")
    check(before == {name: (cache / name).read_bytes() for name in os.listdir(cache)}, "new files")
    print(
        f"{n} processes started at once on an empty cache: {n} results, all the same to the last "
        f"bit;\n  {len(names) - 1} entries, no part files or locks; a later process found them all"
    )


# Flips


def flip_bits(cache: Path, n: int) -> None:
    os.environ["NUMBANET_CACHE_DIR"] = str(cache)
    expected = in_child(generator_state)
    (entry,) = cache.glob("skip-*.cpu")
    whole, rng = entry.read_bytes(), random.Random(1)
    for _ in range(n):
        bit, damaged = rng.randrange(8 * len(whole)), bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        entry.write_bytes(damaged)
        check(code_store.read(entry) is None, f"bit {bit} was flipped and nobody noticed")
        check(in_child(generator_state) == expected, f"another result after bit {bit} was flipped")
        check(code_store.read(entry) is not None, "the damaged entry was not replaced")
        check(in_child(generator_state) == expected, "another result from the new entry")
    print(
        f"{n} times one flipped bit in a kernel of {len(whole)} bytes: {n} right results,\n"
        f"  no crash, {n} times compiled anew and the entry replaced"
    )


def generator_state() -> str:
    return str(Pcg32(7).state)  # computed by a kernel


def in_child(function) -> str:
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        found = stream.read().decode()
    _, status = os.waitpid(process, 0)
    check(status == 0, f"a process ended with status {status}")
    return found


# Trainings


def random_config(rng: random.Random) -> dict:
    return {
        "loss": {"otype": rng.choice(LOSSES)},
        "optimizer": rng.choice(OPTIMIZERS),
        "encoding": rng.choice(ENCODINGS),
        "network": {
            "otype": "CutlassMLP",
            "n_neurons": rng.choice((8, 16, 33)),
            "n_hidden_layers": rng.choice((1, 2)),
            "activation": rng.choice(ACTIVATIONS),
        },
    }


def resume(folder: Path, n: int) -> None:
    rng, n_steps = random.Random(2), 6
    for k in range(n):
        config, saved = random_config(rng), folder / f"{k}.safetensors"
        warm, cold = folder / "warm", folder / f"cold-{k}"
        whole = answer(started(warm, config, n_steps, "", saved))
        for cache in (warm, cold):
            found = answer(started(cache, config, n_steps // 2, saved))
            check(found == whole, f"{config} goes on otherwise with the cache {cache.name}")
    print(
        f"{n} random models, saved in the middle of {n_steps} steps and resumed in new processes: "
        f"{n} of {n}\n  the same to the last bit with warm caches, {n} of {n} with cold ones"
    )


def check(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"not as promised: {message}")


if __name__ == "__main__":
    main()
