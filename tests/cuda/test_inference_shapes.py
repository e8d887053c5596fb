"""How inference is divided among warps and blocks, without running it."""

from types import SimpleNamespace

import pytest

import numbanet
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.driver.device import RESERVED
from numbanet.cuda.tables.gradients import FEWEST_INFERRED, FEWEST_MOST_INFERRED

REGISTERS = 65536  # of a multiprocessor
MOST_SAMPLES = 2**22
GRID = {"otype": "HashGrid", "log2_hashmap_size": 12}
ONE_BLOB, IDENTITY = {"otype": "OneBlob", "n_bins": 64}, {"otype": "Identity"}
MIXED = {"otype": "Composite", "nested": [{"n_dims_to_encode": 1, **GRID}, IDENTITY]}


class RecordingDevice(CompileOnlyDevice):
    """Compiles nothing either; `launches` are what was asked for."""

    def build(self, function, argument_types, block=None, max_registers=None):
        name = function.__name__
        return SimpleNamespace(name=name, max_registers=max_registers, n_cached_for=None)

    def share_cache(self, kernel, n_blocks, shared_bytes):
        kernel.n_cached_for = n_blocks

    def launch(self, kernel, grid, block, shared_bytes, arguments):
        self.launches.append((kernel, grid, block, shared_bytes))


@pytest.mark.parametrize("n", [0, 1, 255, 257, 4000, MOST_SAMPLES])
@pytest.mark.parametrize(
    ("encoding", "n_neurons", "n_hidden_layers", "capability", "n_warps", "n_blocks", "n_started"),
    [
        (GRID, 64, 2, (9, 0), 8, 2, 1),
        (GRID, 16, 1, (9, 0), 8, 2, 1),
        (MIXED, 64, 2, (9, 0), 8, 2, 1),
        (IDENTITY, 64, 2, (9, 0), 16, 1, 1),
        (GRID, 128, 2, (9, 0), 4, 2, 2),
        (ONE_BLOB, 128, 2, (9, 0), 4, 2, 2),
        (ONE_BLOB, 64, 4, (9, 0), 4, 2, 2),
        (GRID, 128, 4, (9, 0), 8, 1, 1),
        (ONE_BLOB, 128, 5, (9, 0), 8, 1, 1),
        (GRID, 64, 2, (8, 6), 8, 2, 1),
        (ONE_BLOB, 128, 5, (8, 6), 3, 1, 1),
    ],
)
def test_shapes(encoding, n_neurons, n_hidden_layers, capability, n_warps, n_blocks, n_started, n):
    device = RecordingDevice(capability)
    network = {"otype": "FullyFusedMLP", "n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}
    config = {"encoding": encoding, "network": network}
    model = numbanet.create_from_config(2, 3, config, device=device, precision="float16")
    device.launches.clear()
    outputs = model(model.network.target.empty(n, 2))
    assert outputs.shape == (n, 3)
    names = {each.name for each, *_ in device.launches}
    assert names <= {"resident_features", *(name for name in names if "fused_inference" in name)}
    kernel, grid, block, shared_bytes = device.launches[-1]  # the features of a part come before
    assert kernel.name.startswith("fused_inference")
    assert block == 32 * n_warps
    assert kernel.n_cached_for == n_started
    most, streams = n_started * device.n_multiprocessors, n_hidden_layers == 5
    assert grid == min(-(-n // (block if streams else 32)), most)  # small batches among all of them
    assert kernel.max_registers * block * n_blocks <= REGISTERS
    assert kernel.max_registers in (128, 255)
    assert n_blocks * (shared_bytes + RESERVED) <= device.max_shared_bytes + RESERVED


@pytest.mark.parametrize(
    ("log2_hashmap_size", "fewest"), [(12, FEWEST_MOST_INFERRED), (19, FEWEST_INFERRED)]
)
def test_larger_batches_have_features_looked_up_before(log2_hashmap_size, fewest):
    """From fewer samples on where most levels fit shared memory."""
    device = RecordingDevice((9, 0))
    grid = {**GRID, "log2_hashmap_size": log2_hashmap_size}
    network = {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 2}
    config = {"encoding": grid, "network": network}
    model = numbanet.create_from_config(3, 3, config, device=device, precision="float16")
    for n in (fewest - 1, fewest):
        device.launches.clear()
        model(model.network.target.empty(n, 3))
        names = [kernel.name for kernel, *_ in device.launches]
        assert names[:-1] == ["resident_features"] * (n == fewest)
        assert names[-1].startswith("fused_inference")
