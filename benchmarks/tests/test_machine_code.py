"""How many machine instructions the fused kernels of an image's hash grid take: sm_90, float16.

32-64-64-3 with 16 levels in 2-D, for a warp and 16 samples.
"""

import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

BENCHMARKS = Path(__file__).parents[1]
MOST = {"training": 1500, "inference": 450}
pytestmark = pytest.mark.usefixtures("current_assembler")


@cache
def counted():
    sys.path.append(str(BENCHMARKS))
    import machine_code

    try:
        machine_code.disassembler()
    except SystemExit as error:
        pytest.skip(f"needs nvdisasm: {error}")
    kernels = machine_code.fused_kernels("config_hash")
    return {kernel.name: machine_code.counts(kernel) for kernel in kernels}, machine_code.FLOORS


@pytest.mark.parametrize("what", MOST)
def test_instructions_for_16_samples(what):
    found, floors = counted()
    name = f"fused_{what}_Grid_float16"
    assert floors["config_hash", name] <= found[name].total() <= MOST[what]


@pytest.mark.parametrize(("what", "n"), [("inference", 52 + 16), ("training", 164 + 16)])
def test_loops_count_as_often_as_they_run(what, n):
    """Tensor-core instructions are known: the emulator executes as many."""
    assert counted()[0][f"fused_{what}_Grid_float16"]["HMMA"] == n
