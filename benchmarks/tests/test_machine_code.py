"""Machine instructions of the fused kernels of an image's hash grid: sm_90, float16.

32-64-64-3 with 16 levels in 2-D, for a warp and 16 samples.
"""

from functools import cache

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from benchmarks.harness import machine_instructions

MOST = {"training": 1500, "inference": 450}
pytestmark = pytest.mark.usefixtures("current_assembler")


@cache
def counted():
    try:
        machine_instructions.disassembler()
    except SystemExit as error:
        pytest.skip(f"needs nvdisasm: {error}")
    kernels = machine_instructions.fused_kernels("config_hash")
    found = {kernel.name: machine_instructions.counts(kernel) for kernel in kernels}
    return found, machine_instructions.FLOORS


@pytest.mark.parametrize("what", MOST)
def test_instructions_for_16_samples(what):
    found, floors = counted()
    name = f"fused_{what}_Grid_float16"
    assert floors["config_hash", name] <= found[name].total() <= MOST[what]


@pytest.mark.parametrize(
    ("what", "instruction", "n"),
    [
        ("inference", "HMMA", 52 + 16),
        ("training", "HMMA", 20 + 16),  # the last matrix, and interpolation
        # of warpgroups: both matrices forward, both backward, and their gradients
        ("training", "HGMMA", 2 + 4 + 4 + 4 + 8),
    ],
)
def test_loops_count_as_often_as_they_run(what, instruction, n):
    """Tensor-core instructions are known: the emulator executes as many."""
    assert counted()[0][f"fused_{what}_Grid_float16"][instruction] == n
