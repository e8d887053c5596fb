"""Execution of PTX on the CPU, so that compiled GPU kernels are tested without a GPU."""

from emulator.ptx.counters import Counters as Counters
from emulator.ptx.errors import EmulationError as EmulationError
from emulator.ptx.memory import EmulatedMemory as EmulatedMemory
from emulator.ptx.module import Module as Module
