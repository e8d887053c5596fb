"""Deterministic steps: the same bits whatever the number of blocks, and the order of everything.

On the emulator blocks run in a drawn order, some of them at a time, and so do the lanes of atomics.
"""

import pickle
from dataclasses import dataclass

import laws
import naive
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, mlp
from test_fused import COMPOSITE, IDENTITY, ONE_BLOB
from test_gates import HOPPER, TURING, found_in

import numbanet
from emulator.device import EmulatedDevice
from numbanet.cuda.chain import encoding_engine
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.memory.arrays import to_device
from numbanet.cuda.memory.rooms import Rooms
from numbanet.cuda.memory.slots import Slots
from numbanet.cuda.tables import digits
from numbanet.cuda.target import CudaTarget
from numbanet.registry import ConfigError
from numbanet.snapshot import SnapshotError

SMALL = {**HASH, "n_levels": 2, "log2_hashmap_size": 6, "base_resolution": 3}
RANDOM = {**SMALL, "stochastic_interpolation": True, "n_features_per_level": 1}
NETWORK, LAYERED = mlp("FullyFusedMLP", 16, 1), mlp("CutlassMLP", 20, 2, "SiLU", bias=True)
WIDE = mlp("FullyFusedMLP", 64, 6)  # whose gradients do not fit a thread's registers
ADAM = {"otype": "Adam", "learning_rate": 0.01}
NOVOGRAD = {"otype": "EMA", "nested": {"otype": "Novograd"}}


@dataclass(frozen=True)
class Model:
    """How a model is made."""

    encoding: dict
    network: dict | None = None
    n_inputs: int = 2
    precision: str = "float16"
    capability: tuple = HOPPER
    optimizer: dict | None = None
    loss: str = "RelativeL2"
    fused: bool | None = None

    @property
    def config(self):
        return {
            "loss": {"otype": self.loss},
            "optimizer": self.optimizer or ADAM,
            "encoding": self.encoding,
            "network": self.network or NETWORK,
        }

    def create(self, device, deterministic=True):
        return numbanet.create_from_config(
            *(self.n_inputs, 3, self.config), device=device, precision=self.precision,
            fused=self.fused, deterministic=deterministic,
        )  # fmt: skip


MODELS = {
    "fused": Model(SMALL),
    "wide": Model(SMALL, WIDE, optimizer=NOVOGRAD),
    "no parameters": Model(ONE_BLOB, optimizer={"otype": "Shampoo"}),
    "chain": Model({**SMALL, "n_features_per_level": 8}, LAYERED),
    "float32": Model(SMALL, precision="float32"),
    "random corners": Model(RANDOM),
    "before Hopper": Model({**SMALL, "n_features_per_level": 4}, fused=False, capability=(8, 6)),
    "bfloat16": Model(COMPOSITE, n_inputs=5, precision="bfloat16", loss="RelativeL2Luminance"),
}


def drawn(n_multiprocessors, seed, capability=HOPPER, **options):
    device = EmulatedDevice(capability, **options)
    device.n_multiprocessors = n_multiprocessors
    device.order = np.random.default_rng(seed)
    return device


def trained(model, n_multiprocessors, seed, deterministic=True, n=260):
    """What runs leave behind: losses, gradients of inputs and parameters, parameters.

    Of n samples, of one and of none.
    """
    device = drawn(n_multiprocessors, seed, model.capability)
    made, rng = model.create(device, deterministic), np.random.default_rng(0)
    x = rng.random((n, model.n_inputs)).astype(np.float32)
    y = np.abs(rng.normal(size=(n, 3))).astype(np.float32)
    network, step = made.network, made.trainer.training_step
    losses = [float(step(x[:k], y[:k])) for k in (1, n)]
    dl_dx = network.target.empty(*x.shape)
    step(x, None, external_dl_dy=y - 0.5, dl_dinput=dl_dx)
    found = [np.float32(losses), dl_dx.numpy(), network.params.numpy()]
    for k in (1, 0):
        step(x[:k], y[:k], run_optimizer=False)
        found.append(network.gradients.numpy())
    return found


def bits(arrays):
    return [array.view(np.uint32).tolist() for array in arrays]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_on_any_number_of_blocks(name):
    first = trained(MODELS[name], 4, 0)
    assert all(np.isfinite(array).all() for array in first)
    *_, of_one, of_none = first
    assert of_one.any()
    assert not of_none.any()
    assert bits(trained(MODELS[name], 1, 1)) == bits(first)


@pytest.mark.parametrize("name", ["fused", "float32"])
def test_the_default_depends_on_the_order(name):
    """So the bits above are no matter of course."""
    assert bits(trained(MODELS[name], 4, 0, False)) != bits(trained(MODELS[name], 1, 1, False))


@pytest.mark.parametrize(("n_slots", "n"), [(1, 1), (5, 33), (150, 40)])
def test_slots_are_added_up(n_slots, n):
    device = drawn(4, 0, racecheck="global")
    slots, values = Slots(device, Rooms(device)), np.random.default_rng(0)
    numbers = np.float32(values.normal(size=(n_slots, n)))
    address = slots.zeros(n_slots, n)
    assert not device.memory.view(address, np.float32, numbers.size).any()
    device.copy_to_device(address, numbers)
    gradients = to_device(np.ones(n + 2, np.float32), device)
    slots.add_to(gradients.address + 4, n_slots, n)
    np.testing.assert_allclose(gradients.numpy()[1:-1], 1 + np.float64(numbers).sum(0), atol=1e-4)
    assert np.array_equal(gradients.numpy()[[0, -1]], [1, 1])


# The sums of an encoding's parameters


class OnDevice:
    """An encoding's engine, with its twin."""

    def __init__(self, otype, config, sizes, precision="float32", seed=0, deterministic=True):
        self.encoding = laws.create("encoding", otype, config, sizes)
        self.twin = naive.encoding({"otype": otype, **config}, **sizes)
        self.target = CudaTarget(drawn(4, seed, racecheck="global"), precision)
        self.engine = self.target.encoding_engine(self.encoding)
        self.engine.deterministic = deterministic
        self.values = np.random.default_rng(1).normal(size=self.encoding.n_params)
        self.params = self.target.parameters(np.float32(self.values), 0).current()

    def gradients(self, x, dl_dy, dl_ddx=None):
        gradients = self.target.gradients(self.values.size, 0)
        x, dl_dy = (to_device(np.float32(each), self.target.device) for each in (x, dl_dy))
        if dl_ddx is None:
            self.engine.backward(x, self.params, dl_dy, gradients, None)
        else:
            along = to_device(dl_ddx, self.target.device)
            self.engine.double_backward(x, self.params, dl_dy, along, gradients)
        return gradients.flat.numpy()

    def batch(self, n, spread=0):
        rng = np.random.default_rng(n)
        x = rng.random((n, self.encoding.n_dims)).astype(np.float32)
        size = 2.0 ** rng.integers(-spread, 1, (n, 1))
        return x, np.float32(rng.normal(size=(n, self.encoding.n_outputs)) * size)

    def exact(self, x, dl_dy):
        return self.twin.backward_params(*(np.float64(each) for each in (x, self.values, dl_dy)))


GRIDS = [case for case in laws.examples("encoding") if laws.create("encoding", *case).n_params]


@pytest.mark.parametrize(("otype", "config", "sizes"), GRIDS)
def test_integer_sums_match_the_twin(otype, config, sizes):
    on = OnDevice(otype, config, sizes)
    for n in (1, 33, 257):
        x, dl_dy = on.batch(n)
        exact = on.exact(x, dl_dy)
        assert np.linalg.norm(on.gradients(x, dl_dy) - exact) < 2e-5 * np.linalg.norm(exact)


PLANE = "Grid", {**SMALL, "otype": "Grid", "type": "Hash"}, {"n_dims": 2}


def test_second_derivatives_are_the_same_bits():
    found = []
    for seed in (0, 1):
        on = OnDevice(*PLANE, seed=seed)
        x, dl_dy = on.batch(200)
        dl_ddx = np.float32(x - 0.5)
        on.engine.deterministic = seed < 2
        found.append(on.gradients(x, dl_dy, dl_ddx))
    on.engine.deterministic = False
    assert bits(found[:1]) == bits(found[1:])
    np.testing.assert_allclose(found[0], on.gradients(x, dl_dy, dl_ddx), rtol=1e-4, atol=1e-4)


def test_one_entry_takes_all_samples():
    """The largest numbers there are; nothing overflows before the sum does."""
    on = OnDevice(*PLANE)
    x, dl_dy = np.full((900, 2), 0.37), np.full((900, on.encoding.n_outputs), 2.0**100)
    exact = on.exact(x, dl_dy)
    np.testing.assert_allclose(on.gradients(x, dl_dy), exact, rtol=1e-6)
    found = on.gradients(x, np.full_like(dl_dy, 2.0**127))
    assert np.isinf(found[np.flatnonzero(exact)[np.argmax(exact[exact > 0])]])


def test_gradients_over_30_powers_of_two():
    """Sums stay exact beside samples that are a thousand million times as large."""
    on = OnDevice(*PLANE)
    x, dl_dy = on.batch(500, spread=30)
    x[:] = np.where(np.abs(dl_dy).max(axis=1, keepdims=True) < 2.0**-20, 0.05, 0.95)
    exact = on.exact(x, dl_dy)
    found, touched = on.gradients(x, dl_dy), np.abs(exact) > 0
    error = np.abs(found - exact)[touched]
    assert np.abs(exact[touched]).min() < 2.0**-24 * np.abs(exact).max()
    assert (error < 2e-3 * np.abs(exact[touched]) + 2.0**-40).all()


def test_larger_batches_are_added_up_in_three_digits(monkeypatch):
    """Outside of deterministic steps: to 2^-33 of the largest number at each addition."""
    monkeypatch.setattr(encoding_engine, "FEWEST_DIGITS", 400)
    on = OnDevice(*PLANE, deterministic=False)
    launches = on.target.device.launches
    x, dl_dy = on.batch(500, spread=30)
    x[:] = np.where(np.abs(dl_dy).max(axis=1, keepdims=True) < 2.0**-20, 0.05, 0.95)
    exact = on.exact(x, dl_dy)
    error = np.abs(on.gradients(x, dl_dy) - exact)
    assert (error < 2e-3 * np.abs(exact) + 2.0**-26).all()
    assert "add_digits_float32" in launches
    monkeypatch.setattr(digits, "SLICE", 100)
    monkeypatch.setattr(digits, "JOBS", 5)  # so that blocks run in rounds
    in_slices = np.abs(on.gradients(x, dl_dy) - exact)
    assert (in_slices < 2e-3 * np.abs(exact) + 2.0**-26).all()
    launches.clear()
    on.gradients(x[:399], dl_dy[:399])
    assert "add_digits_float32" not in launches
    x, dl_dy = np.full((900, 2), 0.37), np.full((900, on.encoding.n_outputs), -(2.0**100))
    np.testing.assert_allclose(on.gradients(x, dl_dy), on.exact(x, dl_dy), rtol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_makes_all_nan(value):
    on = OnDevice(*PLANE)
    x, dl_dy = on.batch(40)
    dl_dy[7, 1] = value
    assert np.isnan(on.gradients(x, dl_dy)).all()


def test_tiny_gradients_are_not_lost():
    """Numbers near the smallest that float32 has, in a unit of their own."""
    on = OnDevice(*PLANE)
    x, dl_dy = on.batch(100)
    exact = on.exact(x, dl_dy)
    found = np.float64(on.gradients(x, dl_dy * np.float32(2.0**-90))) * 2.0**90
    assert np.linalg.norm(found - exact) < 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize("capability", [TURING, HOPPER], ids=str)
@pytest.mark.usefixtures("current_assembler")
def test_kernels_have_nothing_unwanted(capability):
    device = CompileOnlyDevice(capability)
    for name in ("random corners", "float32"):
        model = MODELS[name].create(device)
        x = np.zeros((300, 2), np.float32)
        dl_dx = model.network.target.empty(300, 2)
        model.trainer.training_step(x, np.zeros((300, 3), np.float32), dl_dinput=dl_dx)
    encoding = numbanet.create_encoding(2, SMALL, device=device, precision="float32")
    encoding.deterministic = True
    y, context = encoding.forward(x)
    encoding.double_backward(context, y, x)
    assert found_in(device) == set()
    for kernel in device.kernels:
        used = kernel.cubin.resources
        assert used.spill_stores == used.spill_loads == used.local_bytes == 0, kernel.name


# Who asks for it


def test_config_and_arguments(cuda_device, tmp_path):
    def create(config, **options):
        return numbanet.create_from_config(2, 3, config, device=cuda_device, **options)

    config = Model(IDENTITY).config
    assert not create(config).network.deterministic
    assert not create({**config, "deterministic": True}, deterministic=False).trainer.deterministic
    made = create({**config, "deterministic": True})
    assert made.network.deterministic
    assert made.trainer.config()["deterministic"] is True
    with pytest.raises(ConfigError, match="deterministic: 1 is not allowed; use true or false"):
        create({**config, "deterministic": 1})
    with pytest.raises(ValueError, match=r"deterministic: 'yes'.*True or False"):
        create(config, deterministic="yes")
    with pytest.raises(ValueError, match="deterministic: 2"):
        made.network.deterministic = 2
    optimizer, loss = made.trainer.optimizer, made.trainer.loss
    other = numbanet.Trainer(create(config).network, optimizer, loss, deterministic=True)
    assert other.network.deterministic


def test_snapshots_and_pickles_keep_it(tmp_path):
    config = Model(IDENTITY).config | {"deterministic": True}
    made = numbanet.create_from_config(2, 3, config, device="cpu")
    assert made.network.deterministic
    assert pickle.loads(pickle.dumps(made.trainer)).deterministic
    made.save(tmp_path / "model")
    assert numbanet.load(tmp_path / "model", device="cpu").trainer.deterministic
    options = {"device": "cpu", "deterministic": False}
    assert not numbanet.load(tmp_path / "model", **options).trainer.deterministic
    plain = numbanet.create_from_config(2, 3, Model(IDENTITY).config, device="cpu")
    assert "deterministic" not in plain.trainer.config()
    plain.load(tmp_path / "model")


def test_a_snapshot_that_says_nonsense(tmp_path, monkeypatch):
    made = numbanet.create_from_config(2, 3, Model(IDENTITY).config, device="cpu")
    config = made.trainer.config() | {"deterministic": "maybe"}
    monkeypatch.setattr(numbanet.Trainer, "config", lambda trainer: config)
    made.save(tmp_path / "model")
    with pytest.raises(SnapshotError, match="deterministic: expected true or false"):
        numbanet.load(tmp_path / "model", device="cpu")


def encoding_trainer(device):
    optimizer, loss = numbanet.create_optimizer(ADAM), numbanet.create_loss({"otype": "L2"})
    encoding = numbanet.create_encoding(2, SMALL, device=device, precision="float32")
    return numbanet.Trainer(encoding, optimizer, loss)


def fused_trainer(device):
    return MODELS["fused"].create(device, deterministic=False).trainer


@pytest.mark.parametrize(
    ("create", "kernel"), [(fused_trainer, "add_slots"), (encoding_trainer, "collect_digits")]
)
def test_captured_steps_are_made_anew(cuda_device, create, kernel):
    """What was recorded is not played once sums are to have another order."""
    recorded = getattr(cuda_device, "launches", None)
    if recorded is None:
        pytest.skip("needs the emulator, which records launches")
    trainer = create(cuda_device)
    x = to_device(np.full((40, 2), 0.3, np.float32), cuda_device)
    y = to_device(np.ones((40, trainer.network.n_output_dims), np.float32), cuda_device)
    for deterministic in (False, True):
        trainer.network.deterministic = deterministic
        for _ in range(3):
            recorded.clear()
            trainer.training_step(x, y)
            assert (kernel in recorded) is deterministic
