"""Executes PTX on the CPU, so that compiled GPU kernels are tested without a GPU."""

from .counters import Counters as Counters
from .errors import EmulationError as EmulationError
from .memory import EmulatedMemory as EmulatedMemory
from .module import Module as Module
