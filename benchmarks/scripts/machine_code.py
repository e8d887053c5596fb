"""Count the machine instructions of the fused kernels' loop over tiles, for the sample configs.

    python -m benchmarks.scripts.machine_code

Needs no GPU, but nvdisasm: pip install nvidia-cuda-nvdisasm.
"""

from benchmarks.harness.machine_instructions import FLOORS, counts, fused_kernels
from benchmarks.harness.samples import NAMES


def main() -> None:
    print("Machine instructions per warp and 16 samples, and what they cannot be below:")
    for name in NAMES:
        print(name)
        for kernel in fused_kernels(name):
            found, floor = counts(kernel), FLOORS.get((name, kernel.name))
            registers = kernel.cubin.resources.registers
            beside = f", floor {floor:,.0f}" if floor else ""
            print(f"  {kernel.name}: {found.total():,.0f}{beside}, {registers} registers")
            print("    " + ", ".join(f"{each} {n:g}" for each, n in found.most_common(16)))


if __name__ == "__main__":
    main()
