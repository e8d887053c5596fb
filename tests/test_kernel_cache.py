"""Compiled code on disk: found by every process, whatever ran before in it, and never relied on."""

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import models
import numba
import numpy as np
import pytest
from laws import compilations, compiles_nothing
from numba.core.bytecode import FunctionIdentity

import numbanet
from numbanet.cpu.kernels import training_kernel
from numbanet.cpu.training_plan import TrainingPlan
from numbanet.fingerprint import NotCacheable, fingerprint
from numbanet.kernel_cache import compile_cached

ROOT = Path(__file__).parents[1]
TRAIN = """
from numba.core import event
import models

with event.install_recorder("numba:compile") as recorder:
    model = models.create("hash")
    loss = model.trainer.training_step(*models.batch_of("hash", 50))
print(repr(float(loss)), len(recorder.buffer))
"""


def test_another_process_compiles_nothing():
    """It finds what this one compiled, even though this one has done much else before."""
    loss = float(models.create("hash").trainer.training_step(*models.batch_of("hash", 50)))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [repr(loss), "0"]


def test_a_module_of_two_names_makes_one_key():
    """Importing numba-cuda replaces numba.types by another module that stands for numba.core's."""
    core, public = numba.core.types, types.ModuleType("numba.types")
    assert fingerprint(core) == fingerprint(public) != fingerprint(np)


def test_a_kernel_is_known_by_what_it_does():
    """Equal models make equal keys, whichever of their functions they share; others do not."""

    def key(n_levels):
        config = models.config_of("hash")
        config["encoding"]["n_levels"] = n_levels  # as no other test has it
        model = numbanet.create_from_config(2, 3, config, device="cpu")
        plan = TrainingPlan(model.network.engine.model, model.trainer.loss)
        return fingerprint(training_kernel.__wrapped__(plan).dispatcher.py_func)

    assert key(5) == key(5) == key(5)
    assert key(5) != key(6)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def product(factor):
    """A composed closure, new at each call: equal to another one with the same factor."""
    multiply = numbanet.device.device(lambda x: x * factor)

    def product(x):
        return multiply(x)

    return compile_cached(product)


def test_an_entry_is_found_again(cache):
    assert product(3)(5) == 15
    assert len(list(cache.glob("*.cpu"))) == 1
    with compiles_nothing():
        assert product(3)(5) == 15
    with compilations() as names:
        assert product(4)(5) == 20
        assert product(3)(np.float32(5)) == 15
    assert names.count("product") == 4  # start and end of each
    assert len(list(cache.glob("*.cpu"))) == 3


def test_symbols_of_two_processes_differ(cache, monkeypatch):
    """Each counts functions from 1; a third process may load what both compiled."""
    names = []
    for factor in (6, 7):
        monkeypatch.setattr(FunctionIdentity, "_unique_ids", itertools.count(1))
        kernel = product(factor)
        assert kernel(5) == 5 * factor
        names.append(kernel.overloads[kernel.signatures[0]].fndesc.mangled_name)
    assert len(set(names)) == 2
    assert [product(factor)(5) for factor in (6, 7)] == [30, 35]


@pytest.mark.parametrize("content", [b"", b"\x80" * 999, "half"])
def test_a_damaged_entry_is_compiled_anew(cache, content):
    product(3)(5)
    (entry,) = cache.glob("*.cpu")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with compilations() as names:
        assert product(3)(5) == 15
    assert "product" in names
    with compiles_nothing():
        assert product(3)(5) == 15


def test_nothing_in_an_entry_is_executed(cache, tmp_path):
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    product(3)(5)
    (entry,) = cache.glob("*.cpu")
    planted = pickle.dumps(Planted())
    for content in (planted, entry.read_bytes() + planted, entry.read_bytes()[:65] + planted):
        entry.write_bytes(content)
        assert product(3)(5) == 15
    assert not (tmp_path / "executed").exists()


def test_what_returns_no_plain_number_works_and_is_not_kept(cache):
    pair = compile_cached(lambda x: (x, np.ones(2)))
    assert pair(3)[0] == 3
    assert not list(cache.glob("*.cpu"))


def test_machine_code_stays_with_no_kernel(cache):
    pair = compile_cached(lambda x: (x, np.ones(2)))  # it is not kept on disk
    for kernel in product(8), product(8), pair:  # the second one is read
        kernel(5)
        (compiled,) = kernel.overloads.values()
        assert (compiled.library.machine_code, compiled.library.symbols) == (b"", ())


def test_a_cache_that_cannot_be_written_is_no_error(cache):
    cache.write_text("a file where the directory should be")
    assert product(3)(5) == 15
    assert cache.read_text() == "a file where the directory should be"


@pytest.mark.parametrize(
    "pair",
    [
        (math.sin, math.cos),
        (np.sin, np.cos),
        (numba.float32, numba.float64),
        (numba.float32(1), numba.int32(1)),
        ((1, 2.0), (1, 2)),
    ],
    ids=str,
)
def test_what_is_captured_makes_the_key(pair):
    def composed(value):
        return lambda x: (x, value)

    assert fingerprint(composed(pair[0])) == fingerprint(composed(pair[0]))
    assert fingerprint(composed(pair[0])) != fingerprint(composed(pair[1]))


def test_defaults_and_attributes_of_modules_make_the_key(monkeypatch):
    def with_default(value):
        return lambda x, scale=value: x * scale

    assert fingerprint(with_default(1)) != fingerprint(with_default(2))
    user_module = types.ModuleType("user_module")
    user_module.SCALE = 2

    def scaled(x):
        return x * user_module.SCALE

    before = fingerprint(scaled)
    monkeypatch.setattr(user_module, "SCALE", 30)
    assert fingerprint(scaled) != before


def test_what_has_no_key_is_refused():
    class Unknown:
        """Nothing tells what this does."""

    unknown = Unknown()

    def names_unknown(x):
        return x, unknown

    with pytest.raises(NotCacheable):
        fingerprint(names_unknown)


def test_training_gives_the_same_bits_from_cold_and_from_warm_caches(cache):
    """With every optimizer: a process that compiles on two threads, one that loads on one."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    cold, warm = (
        subprocess.run(
            [sys.executable, str(ROOT / "tests" / "train_with_optimizers.py"), str(n_threads)],
            env={**os.environ, "PYTHONPATH": path, "NUMBA_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        for n_threads in (2, 1)
    )
    assert cold.returncode == 0, cold.stderr
    assert json.loads(cold.stdout) == json.loads(warm.stdout)


def test_numba_without_its_compiler_is_explained():
    done = subprocess.run(
        [sys.executable, "-c", "import numbanet; numbanet.create_from_config(1, 1, {})([[0.0]])"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    *_, line = done.stderr.splitlines()
    assert line.startswith("RuntimeError: numbanet computes with compiled code alone")
    assert "NUMBA_DISABLE_JIT" in line
