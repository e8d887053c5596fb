"""PTX module on the emulated device: its variables in memory, its kernels to launch."""

from functools import lru_cache

import numpy as np

from emulator.ptx.compiler import CompiledKernel
from emulator.ptx.control_flow import Program
from emulator.ptx.counters import Counters
from emulator.ptx.dtypes import DTYPES, FLOATS, UNSIGNED, scalar
from emulator.ptx.errors import LaunchError
from emulator.ptx.machine import Launch, Machine
from emulator.ptx.memory import EmulatedMemory
from emulator.ptx.parser import parse
from emulator.ptx.races import RaceDetector
from emulator.ptx.scheduler import run
from emulator.ptx.syntax import Symbol

MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_STATIC_SHARED = 48 * 1024
SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 120: 99, 121: 99}  # others: 227
RESIDENT_LANES = 16384


class Code:
    """Parsed PTX, independent of memory: its kernels, and their compiled forms."""

    def __init__(self, ptx):
        self.kernels, self.variables, self.target = parse(ptx)
        self.capability = int("".join(c for c in self.target if c.isdigit()) or 0)
        self.programs, self.compiled = {}, {}

    def program(self, name):
        if name not in self.kernels:
            raise LaunchError(f"no kernel {name!r}; there are {', '.join(self.kernels)}")
        if name not in self.programs:
            program = Program(self.kernels[name])
            if program.uses_warpgroups and self.target != "sm_90a":
                raise LaunchError(f"wgmma is an instruction of sm_90a, not of {self.target!r}")
            self.programs[name] = program
        return self.programs[name]


code_of = lru_cache(maxsize=128)(Code)


class Module:
    """Module that is parsed once; the code of a basic block is generated when it first runs.

    Modules of the same text share all that does not depend on where their variables lie.
    """

    def __init__(self, ptx, memory=None):
        self.memory = memory or EmulatedMemory()
        self._code = code_of(ptx)
        self.capability = self._code.capability
        self.addresses = {}  # Variable: address
        for variable in self._code.variables.values():
            if variable.space in ("global", "const"):
                self._place(variable)
        self._compiled = {}

    @property
    def kernel_names(self):
        return list(self._code.kernels)

    def symbol(self, name):
        """Address of a module variable."""
        return next(address for v, address in self.addresses.items() if v.name == name)

    def _place(self, variable):
        address = self.addresses[variable] = self.memory.allocate(variable.n_bytes)
        data = self.memory.view(address, np.uint8, variable.n_bytes)
        data[:] = 0
        dtype = DTYPES[variable.type]
        start = 0
        for item in variable.initial:
            if isinstance(item, Symbol):
                value = scalar(self.addresses[item.variable] + item.offset, dtype)
            elif dtype.kind == "f":
                value = scalar(item.to_float(), dtype)
            else:
                value = scalar(item.value, dtype)
            data[start : start + dtype.itemsize] = value.view(np.uint8)
            start += dtype.itemsize

    def launch(
        self,
        kernel_name,
        grid,
        block,
        arguments=(),
        shared_bytes=0,
        *,
        counters=None,
        racecheck=None,
        initcheck=True,
        max_steps=10_000_000,
        resident_lanes=RESIDENT_LANES,
        order=None,
    ):
        """Run a kernel to its end.

        Args:
            grid, block: up to three sizes, or one integer.
            arguments: the raw parameter bytes, or one address or number per parameter.
            counters: a `Counters` to add to.
            racecheck: None, "shared", or "global" for both memories.
            initcheck: raise on reads of shared memory that nothing wrote.
            max_steps: basic blocks to run before giving up.
            resident_lanes: how many lanes run together; nothing depends on it but the order of
                atomics, unless blocks wait for each other.
            order: a NumPy generator that draws in which order blocks run, how many of them run
                together, and in which order their lanes' atomics take effect; None for that of
                their numbers.
        """
        if racecheck not in (None, "shared", "global"):
            raise ValueError(f"racecheck={racecheck!r}; use None, 'shared' or 'global'")
        unit = self._compile(kernel_name)
        grid, block = dimensions(grid), dimensions(block)
        self._check(unit.program, grid, block, shared_bytes)
        global_races = None
        if racecheck == "global":
            n_granules = self.memory.extent // unit.program.granules["global"]
            global_races = RaceDetector(n_granules)
        launch = Launch(
            unit,
            self.memory,
            grid,
            block,
            pack(unit.program, arguments),
            shared_bytes,
            counters,
            racecheck is not None,
            global_races,
            initcheck,
            max_steps,
            order,
        )
        n_blocks = grid[0] * grid[1] * grid[2]
        lanes_per_block = -(-block[0] * block[1] * block[2] // 32) * 32
        n_resident = max(1, resident_lanes // lanes_per_block)
        numbers = np.arange(n_blocks)
        if order is not None:
            numbers = order.permutation(numbers)
            n_resident = int(order.integers(1, min(n_resident, n_blocks) + 1))
        with np.errstate(all="ignore"):
            for first in range(0, n_blocks, n_resident):
                run(Machine(launch, numbers[first : first + n_resident]))
        if counters is not None:
            counters.add(Counters(launches=1))

    def _compile(self, name):
        program = self._code.program(name)
        compiled = self._compiled if program.uses_module_variables else self._code.compiled
        if name not in compiled:
            compiled[name] = CompiledKernel(program, self.addresses)
        return compiled[name]

    def _check(self, program, grid, block, shared_bytes):
        n_threads = block[0] * block[1] * block[2]
        limits = program.kernel.limits
        most = int(np.prod(limits.get(".maxntid", [MAX_THREADS])))
        if n_threads > min(most, MAX_THREADS) or block[2] > 64:
            raise LaunchError(f"block {block}: at most {min(most, MAX_THREADS)} threads, 64 in z")
        required = limits.get(".reqntid")
        if required and dimensions(tuple(required)) != block:
            raise LaunchError(f"block {block}: the kernel requires {tuple(required)}")
        if any(size > limit for size, limit in zip(grid, MAX_GRID, strict=True)):
            raise LaunchError(f"grid {grid}: at most {MAX_GRID}")
        if program.static_shared_bytes > MAX_STATIC_SHARED:
            raise LaunchError(
                f"{program.static_shared_bytes} bytes of static shared memory, at most"
                f" {MAX_STATIC_SHARED}: use dynamic shared memory"
            )
        most = 1024 * SHARED_KIB.get(self.capability, 227)
        if program.dynamic_shared_offset + shared_bytes > most:
            raise LaunchError(
                f"{program.dynamic_shared_offset} + {shared_bytes} bytes of shared memory, at most"
                f" {most} on sm_{self.capability}"
            )


def dimensions(sizes):
    sizes = (sizes,) if isinstance(sizes, int | np.integer) else tuple(sizes)
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise LaunchError(f"grid or block of {sizes}: one to three sizes, each at least 1")
    return tuple(int(size) for size in sizes) + (1,) * (3 - len(sizes))


def pack(program, arguments):
    """Parameter memory from raw bytes or one value per parameter."""
    parameters = program.kernel.parameters
    if isinstance(arguments, bytes | bytearray | memoryview):
        if len(arguments) != program.parameter_bytes:
            raise LaunchError(f"{len(arguments)} parameter bytes, {program.parameter_bytes} needed")
        return np.frombuffer(bytes(arguments), np.uint8)
    if len(arguments) != len(parameters):
        raise LaunchError(f"{len(arguments)} arguments for {len(parameters)} parameters")
    packed = np.zeros(program.parameter_bytes, np.uint8)
    for parameter, value in zip(parameters, arguments, strict=True):
        start = program.parameter_offsets[parameter]
        packed[start : start + parameter.n_bytes] = parameter_value(parameter, value)
    return packed


def parameter_value(parameter, value):
    dtype = FLOATS.get(parameter.type) or UNSIGNED.get(parameter.n_bytes)
    if isinstance(value, bytes):
        raw = np.frombuffer(value, np.uint8)
    elif isinstance(value, np.generic) and dtype.kind != "f" and value.dtype.kind == "f":
        raw = np.frombuffer(value.tobytes(), np.uint8)
    else:
        raw = scalar(value, dtype).view(np.uint8)
    if raw.shape[0] != parameter.n_bytes:
        raise LaunchError(f"{raw.shape[0]} bytes for the {parameter.n_bytes} of {parameter.name}")
    return raw
