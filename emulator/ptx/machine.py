"""State of the blocks that run together: lanes, registers and memory, and checks of accesses."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from emulator.ptx.accesses import PendingCopies
from emulator.ptx.dtypes import REGISTER_DTYPES, S64, U32, U64, WORDS, scalar
from emulator.ptx.errors import Race, Trap, UninitialisedRead, UnsupportedInstruction
from emulator.ptx.memory import HEAP_START, BlockMemory
from emulator.ptx.races import MANY, THREAD, WARP, WARPGROUP, RaceDetector
from emulator.ptx.warp import ALL, LANES, ActiveWarps, pack_bits
from emulator.ptx.warpgroup import ProxyFences

N_MULTIPROCESSORS = 132
ZEROS = {kind: np.zeros(1, dtype) for kind, dtype in REGISTER_DTYPES.items()}
LANE_MASKS = {
    "%lanemask_eq": lambda bit: bit,
    "%lanemask_lt": lambda bit: bit - 1,
    "%lanemask_le": lambda bit: 2 * bit - 1,
    "%lanemask_gt": lambda bit: ALL - (2 * bit - 1),
    "%lanemask_ge": lambda bit: ALL - (bit - 1),
}


@dataclass
class Launch:
    """State that all blocks of a launch share."""

    unit: object  # CompiledKernel
    memory: object
    grid: tuple
    block: tuple
    parameters: np.ndarray
    dynamic_bytes: int
    counters: object
    checks_shared_races: bool
    global_races: RaceDetector | None
    checks_initialised: bool
    max_steps: int
    order: np.random.Generator | None = None  # of blocks and atomics


class Machine:
    def __init__(self, launch, block_numbers):
        self.launch = launch
        self.unit, self.memory = launch.unit, launch.memory
        self.program = program = launch.unit.program
        self.parameters, self.counters = launch.parameters, launch.counters
        self.block_numbers = np.asarray(block_numbers)
        self.n_blocks = len(block_numbers)
        self.n_threads = int(np.prod(launch.block))
        self.lanes_per_block = -(-self.n_threads // 32) * 32
        self.n_lanes = self.n_blocks * self.lanes_per_block
        self.registers = [ZEROS[kind] for kind in program.register_types]
        n_shared = program.static_shared_bytes
        if launch.dynamic_bytes:
            n_shared = program.dynamic_shared_offset + launch.dynamic_bytes
        self.shared = BlockMemory("shared", n_shared, self.n_blocks, self.lanes_per_block)
        self.local = BlockMemory("local", program.local_bytes, self.n_lanes, 1)
        exists = np.arange(self.lanes_per_block) < self.n_threads
        self.alive = np.tile(exists, self.n_blocks)
        self.n_alive_in_block = np.full(self.n_blocks, self.n_threads)
        self.existing_masks = pack_bits(self.alive.reshape(-1, 32))
        self.copies = PendingCopies(self.n_lanes)
        self.block_epochs = np.zeros(self.n_blocks, np.int32)
        self.warp_epochs = np.zeros(self.n_lanes // 32, np.int32)
        self.has_fenced = np.zeros(self.n_lanes // 32, bool)  # warps, by wgmma.fence
        self.n_mma = self.clock = 0
        self._specials = {}
        self._watch_everything()
        self.select(None if exists.all() else np.flatnonzero(self.alive))
        self.first_selection = self.selection

    # lanes

    def select(self, selection):
        """Make some lanes the active ones; None stands for all."""
        self.selection = selection
        self.n_active = self.n_lanes if selection is None else selection.shape[0]
        self._memo = {}

    def per_selection(self, key, make):
        """Result of `make`, cached for as long as the active lanes stay the same."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def remember(self, name, arrays, make):
        """Result of a function of arrays, which never change and stay alive, cached alike."""
        key = (name, *map(id, arrays))
        return self.per_selection(key, lambda: (make(), arrays))[0]

    def active_lanes(self):
        if self.selection is None:
            return self.per_selection("lanes", lambda: np.arange(self.n_lanes))
        return self.selection

    def warps(self):
        return self.per_selection("warps", lambda: ActiveWarps(self.selection, self.n_lanes))

    @contextmanager
    def only_lanes(self, lanes):
        saved = self.selection, self.n_active, self._memo
        self.select(lanes)
        yield
        self.selection, self.n_active, self._memo = saved

    def only(self, here):
        """Context in which only those of the active lanes are active that `here` selects."""
        return self.only_lanes(self.active_lanes()[here])

    # names

    def block_name(self, number):
        x, y, _ = self.launch.grid
        return f"block ({number % x},{number // x % y},{number // (x * y)})"

    def thread_name(self, thread):
        number, t = divmod(int(thread), self.lanes_per_block)
        x, y, _ = self.launch.block
        return f"{self.block_name(number)} thread ({t % x},{t // x % y},{t // (x * y)})"

    def lane_name(self, k):
        """Name of the k-th active lane."""
        return self.thread_name(self.threads(self.active_lanes()[k : k + 1])[0])

    def warp_name(self, warps, row):
        per_block = self.lanes_per_block // 32
        block, warp = divmod(int(warps.numbers[row]), per_block)
        return f"{self.block_name(int(self.block_numbers[block]))} warp {warp}"

    def threads(self, lanes):
        """Numbers of threads that are unique in the launch."""
        block, lane = np.divmod(lanes, self.lanes_per_block)
        return self.block_numbers[block] * self.lanes_per_block + lane

    def trap(self, opcode):
        raise Trap(f"{opcode} by {self.lane_name(0)}")

    def unsupported(self, message):
        raise UnsupportedInstruction(message)

    # special registers

    def special(self, name):
        values = self._specials.get(name)
        if values is None:
            if "clock" in name or "timer" in name:
                self.clock += 64
                return scalar(self.clock >> (32 if name.endswith("_hi") else 0), U64)
            values = self._specials[name] = self._special(name)
        if self.selection is None or values.shape[0] == 1:
            return values
        return values[self.selection]

    def _special(self, name):
        stem, _, axis = name.partition(".")
        k = "xyz".find(axis)
        if stem == "%tid":
            t = np.arange(self.lanes_per_block) // int(np.prod(self.launch.block[:k]))
            t = t % self.launch.block[k] if k < 2 else t
            return np.tile(t, self.n_blocks).astype(U32)
        if stem == "%ctaid":
            b = self.block_numbers // int(np.prod(self.launch.grid[:k])) % self.launch.grid[k]
            if (b == b[0]).all():
                return scalar(b[0], U32)
            return np.repeat(b, self.lanes_per_block).astype(U32)
        lane = np.tile(LANES, self.n_lanes // 32)
        if name in LANE_MASKS:
            return LANE_MASKS[name](1 << lane).astype(U32)
        warp = np.arange(self.n_lanes) % self.lanes_per_block // 32
        multiprocessor = self.block_numbers % N_MULTIPROCESSORS
        per_lane = {
            "%laneid": lane,
            "%warpid": warp,
            "%smid": np.repeat(multiprocessor, self.lanes_per_block),
        }
        if name in per_lane:
            return per_lane[name].astype(U32)
        constants = {
            "%ntid": self.launch.block[k],
            "%nctaid": self.launch.grid[k],
            "%nwarpid": 64,
            "%nsmid": N_MULTIPROCESSORS,
            "%gridid": 1,
            "WARP_SZ": 32,
            "%dynamic_smem_size": self.launch.dynamic_bytes,
            "%total_smem_size": self.shared.n_bytes,
        }
        if stem not in constants:
            raise UnsupportedInstruction(f"unsupported special register {name}")
        return scalar(constants[stem], U32)

    # what is watched

    def _watch_everything(self):
        launch = self.launch
        counts = self.counters is not None
        n_granules = self.shared.bytes.shape[0] // self.program.granules["shared"]
        self.initialised = np.zeros(n_granules, bool) if launch.checks_initialised else None
        self.races = {"global": launch.global_races, "shared": None}
        if launch.checks_shared_races:
            self.races["shared"] = RaceDetector(n_granules)
        needs_fences = launch.checks_shared_races and self.program.uses_warpgroups
        self.proxy_fences = ProxyFences(n_granules) if needs_fences else None
        self._watches = {
            "global": counts or launch.global_races is not None,
            "shared": counts or launch.checks_shared_races or launch.checks_initialised,
        }

    def watches(self, space):
        return self._watches.get(space, False)

    def watch(self, access, space, view, index, values=None):
        """Count an access about to happen, and check it."""
        if self.counters is not None:
            self.counters.count_access(self, access, space, index)
        self.check(access, space, view, index, values)

    def check(self, access, space, view, index, values=None):
        """Check an access for races, uninitialised reads and missing fences."""
        detector = self.races[space]
        if detector is None and (space == "global" or self.initialised is None):
            return
        size = self.program.granules[space]
        n_each = access.n_bytes // size
        index = np.broadcast_to(index, self.n_active).astype(S64)
        granules = ((index * n_each)[:, None] + np.arange(n_each)).reshape(-1)
        if space == "shared" and self.initialised is not None:
            self._check_initialised(access, granules)
        if space == "shared" and self.proxy_fences is not None:
            self.proxy_fences.watch(self, access, granules)
        if detector is None:
            return
        if space == "global":
            granules += self.memory.granule_of(view, size)
        changes = True
        if values is not None:
            values = np.ascontiguousarray(np.broadcast_to(values, self.n_active))
            values = values.view(WORDS[size])
            if space == "global":  # storing an equal value is harmless
                changes = self.memory.whole(WORDS[size])[granules] != values
        kind = "store" if access.kind == "copy" else access.kind
        if "relaxed" in access.instruction.modifiers:  # strong, as atomics are
            kind = "atomic"
        rows = np.repeat(self._access_rows(access), n_each, axis=0)
        race = detector.check(kind, granules, rows, changes, values)
        if race is not None:
            self._raise_race(space, kind, int(granules[race[0]]), rows[race[0]], *race[1:])

    def _check_initialised(self, access, granules):
        if access.kind in ("store", "copy"):
            self.initialised[granules] = access.kind == "store"
            return
        found = self.initialised[granules]
        if not found.all():
            k = int(np.argmin(found))
            lane = k // (granules.shape[0] // self.n_active)
            byte = int(granules[k]) * self.program.granules["shared"] % self.shared.stride
            message = f"{self.lane_name(lane)} reads byte {byte} of shared memory"
            raise UninitialisedRead(f"{message}, which nothing wrote or whose copy is pending")

    def land(self, index, size, lanes):
        """Record that asynchronous copies of lanes to shared memory have arrived."""
        n_each = size // self.program.granules["shared"]
        granules = (index * n_each)[:, None] + np.arange(n_each)
        if self.initialised is not None:
            self.initialised[granules] = True
        if self.proxy_fences is not None:
            self.proxy_fences.write(granules, lanes[:, None])

    def _access_rows(self, access):
        lanes = self.active_lanes()
        threads = self.threads(lanes)
        block = lanes // self.lanes_per_block
        columns = (
            *(threads + 1, threads // 32 + 1, self.block_numbers[block] + 1),
            *(self.block_epochs[block], self.warp_epochs[lanes // 32]),
            np.broadcast_to(access.number, lanes.shape),
        )
        rows = np.stack(columns, axis=1).astype(np.int32)
        if access.by_warpgroup:
            rows[:, [THREAD, WARP]] = WARPGROUP
        return rows

    def _raise_race(self, space, kind, granule, row, earlier_kind, earlier):
        size = self.program.granules[space]
        place = f"byte {granule * size % max(self.shared.stride, 1)} of shared memory"
        if space == "global":
            place = f"global address {HEAP_START + granule * size:#x}"
        names = {MANY: "several threads", WARPGROUP: "a warpgroup"}
        threads = row[THREAD], earlier[THREAD]
        here, other = (names.get(t) or self.thread_name(t - 1) for t in threads)
        instruction = self.program.instructions[earlier[5]]
        raise Race(
            f"{kind} by {here} to {place}, and {earlier_kind} by {other}"
            f" at line {instruction.line} ({instruction.text}), with nothing to order them"
        )
