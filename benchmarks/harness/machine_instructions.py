"""Machine instructions of the fused kernels' loop over tiles, for the sample configs.

In one round of the loop a warp serves
32 samples, two fragments of 16. A loop within it is one over these fragments, and counts twice. All
branches count, also the rare one where private gradients go to global memory.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, files

from benchmarks.harness.sample_kernels import CAPABILITY, create, passes
from numbanet.cuda.block.layout import FRAGMENTS
from numbanet.cuda.driver.compile_only import CompiledKernel, CompileOnlyDevice
from numbanet.cuda.toolchain.machine_code import Cubin

# Instructions needed for 16 samples, counted by hand: 16 levels in 2-D, of which 6 are dense, and
# 32-64-64-3. A lane computes the features of two such samples' worth: its own one of 32.
CELL = 2 * 4  # multiply-add, floor, conversion and difference in two dimensions
HASHED, DENSE = 3 + 4, 4 + 3 * 3  # hashes of four corners; numbers of vertices, modulo the size
# Address and load of a corner; two products of tensor cores and four multiply-adds along the first
# dimension, two differences and multiply-adds along the second one; a pair of halves.
GATHER = 4 * 2 + 2 + 4 + 2 * 2 + 1
ENCODE = (10 * (CELL + HASHED + GATHER) + 6 * (CELL + DENSE + GATHER)) / 2
MULTIPLY = 52 + 30 + 2 * 16  # tensor cores; matrices from shared memory; activated pairs
SHARED_BY_BOTH = 14  # of these matrices, where both fragments are multiplied at the same time
INPUTS, OUTPUTS, FEATURES = 3, 12, 2  # addresses and loads, or stores
FORWARD = INPUTS + ENCODE + FEATURES + MULTIPLY + OUTPUTS
# Training keeps activations and the gradient of the output, and for each matrix reads rows of
# gradients and activations, multiplies both and the gradients by the matrix, and masks the pairs.
KEEP, LOSS = 4 + 4 + 1, 12 * 3
BACK = 2 * 56 + 4 * (3 + 7) + 26 + (1 + 4 + 4) + 2 * 4 + (4 + 4 + 2) + 3 * 2 * 16 + 8
WEIGHTS = 2 + 4 + 4  # of the corners, and the gradients as scaled float32
ADD, ADD_PRIVATE = 4 * (2 + 2), 4 * (2 + 1 + 2 * 2)  # to global memory, to the block's
SCATTER = (
    10 * (CELL + HASHED + WEIGHTS + ADD)
    + 2 * (CELL + DENSE + WEIGHTS + ADD)
    + 4 * (CELL + DENSE + WEIGHTS + ADD_PRIVATE)
) / 2
FLOORS = {
    ("config_hash", "fused_inference_Grid_float16"): FORWARD - SHARED_BY_BOTH,
    ("config_hash", "fused_training_Grid_float16"): FORWARD + KEEP + LOSS + BACK + SCATTER,
}
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)(.*);")
LABEL = re.compile(r"^(\.L_x_\d+):", re.MULTILINE)


def disassembler() -> str:
    """The path of nvdisasm, installed by pip or with the toolkit."""
    try:
        programs = [each for each in files("nvidia-cuda-nvdisasm") if each.stem == "nvdisasm"]
    except PackageNotFoundError:
        programs = []
    found = str(programs[0].locate()) if programs else shutil.which("nvdisasm")
    if found is None:
        sys.exit("nvdisasm was not found; pip install nvidia-cuda-nvdisasm")
    return found


def lines_of(cubin: Cubin) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin.image)
        file.flush()
        command = [disassembler(), "-c", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text.splitlines()


def executed(lines: list[str]) -> list[str]:
    """The names of the instructions of a kernel's longest loop, as often as they are executed."""
    labels, names, loops = {}, [], []
    for line in lines:
        label, instruction = LABEL.match(line), INSTRUCTION.search(line)
        if label:
            labels[label[1]] = len(names)
        if instruction:
            names.append(instruction[2])
            target = re.search(r"`\((\.L_x_\d+)\)", instruction[3])
            if instruction[2] == "BRA" and target and target[1] in labels:
                loops.append((labels[target[1]], len(names)))
    first, end = max(loops, key=lambda loop: loop[1] - loop[0])
    inner = [names[a:b] for a, b in loops if first < a and b < end]
    return names[first:end] + [name for each in inner for name in each * (FRAGMENTS - 1)]


def fused_kernels(name: str) -> list[CompiledKernel]:
    """The fused kernels of a sample config, compiled."""
    device = CompileOnlyDevice(CAPABILITY)
    for _, run in passes(create(name, device)):
        run()
    return [kernel for kernel in device.kernels if kernel.name.startswith("fused")]


def counts(kernel: CompiledKernel) -> Counter:
    """Instructions that a warp executes for 16 samples, by name."""
    found = Counter(executed(lines_of(kernel.cubin)))
    return Counter({name: n / FRAGMENTS for name, n in found.items()})
