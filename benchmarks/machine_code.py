"""Count the machine instructions of the fused kernels' loop over tiles, for the sample configs.

Needs no GPU, but nvdisasm: pip install nvidia-cuda-nvdisasm. In one round of the loop a warp serves
32 samples, two fragments of 16. A loop within it is one over these fragments, and counts twice; but
repeated attempts of additions to shared memory, mostly one, count once.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, files

from kernel_table import CAPABILITY, SAMPLES, create, passes

from numbanet.cuda.compile_only import CompileOnlyDevice
from numbanet.cuda.fused_layout import FRAGMENTS
from numbanet.cuda.machine_code import Cubin

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
    repeated = [each for each in inner if "ATOMS" not in each]
    return names[first:end] + [name for each in repeated for name in each * (FRAGMENTS - 1)]


def report(kernel) -> None:
    names = executed(lines_of(kernel.cubin))
    each = len(names) / FRAGMENTS
    print(f"  {kernel.name}: {each:,.0f} of {kernel.cubin.resources.registers} registers")
    counts = Counter(names).most_common(16)
    print("    " + ", ".join(f"{name} {n / FRAGMENTS:g}" for name, n in counts))


def main() -> None:
    print("Machine instructions per warp and 16 samples:")
    for name in SAMPLES:
        device = CompileOnlyDevice(CAPABILITY)
        for _, run in passes(create(name, device)):
            run()
        print(name)
        for kernel in device.kernels:
            if kernel.name.startswith("fused"):
                report(kernel)


if __name__ == "__main__":
    main()
