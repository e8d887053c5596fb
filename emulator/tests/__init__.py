"""The emulator's own tests: instructions, memory, control flow, and kernels of numba-cuda."""
