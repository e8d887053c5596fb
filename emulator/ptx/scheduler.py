"""Scheduler of basic blocks on sets of lanes: the lowest block that has lanes is next."""

import heapq
import traceback
from collections import Counter

import numpy as np

from emulator.ptx import float_mode
from emulator.ptx.compiler import merge
from emulator.ptx.dtypes import REGISTER_DTYPES
from emulator.ptx.errors import Deadlock, DivergentCollective, EmulationError, StepLimit


def run(machine):
    """Run the machine's lanes to their end."""
    scheduler = Scheduler(machine)
    try:
        float_mode.set_flush(machine.unit.flush)
        scheduler.run()
    except Exception as error:
        instruction = scheduler.instruction_of(error)
        if not isinstance(error, EmulationError):
            message = f"{type(error).__name__} in the emulator: {error}"
            error, cause = EmulationError(message), error
            error.__cause__ = cause
        if instruction is not None:
            error.at(instruction.line, instruction.text, machine.program.kernel.name)
        raise error
    finally:
        float_mode.set_flush(False)
    if machine.counters is not None:
        scheduler.count(machine.counters)


class Scheduler:
    def __init__(self, machine):
        self.machine = machine
        self.blocks = machine.program.blocks
        self.barriers = BlockBarriers(machine)
        self.waiting = {}  # block number: [lanes]
        self.heap = []
        self.number = 0
        self.n_issued = np.zeros(len(self.blocks), np.int64)

    def run(self):
        machine, unit, counts = self.machine, self.machine.unit, self.machine.counters is not None
        selection = machine.first_selection
        for _ in range(machine.launch.max_steps):
            block = self.blocks[self.number]
            machine.select(selection)
            result = unit.function(self.number)(machine)
            if counts:
                self.n_issued[self.number] += machine.warps().n
            moves = self.moves(block, result, selection)
            if len(moves) == 1:
                target, selection = moves[0]
                if target is not None and not (self.heap and self.heap[0] <= target.number):
                    self.number = target.number
                    continue
            for target, lanes in moves:
                self.send(target, lanes)
            if not self.heap:
                return self.barriers.check_all_left()
            self.number = heapq.heappop(self.heap)
            selection = self.joined(self.waiting.pop(self.number))
        raise StepLimit(f"more than {machine.launch.max_steps} basic blocks were run")

    def moves(self, block, result, selection):
        """[(block, lanes)] that go on."""
        if block.barrier is not None:
            return self.barriers.arrive(block.barrier, block.targets[0], *result)
        if block.selector is None:
            return [(block.targets[0], selection)]
        if result.shape[0] == 1:
            if result[0] >= len(block.targets):
                raise EmulationError(f"branch index {result[0]} of {len(block.targets)} targets")
            return [(block.targets[int(result[0])], selection)]
        moves, n_moved, lanes = [], 0, self.machine.active_lanes()
        for k, target in enumerate(block.targets):
            here = result == k if result.dtype != bool else result if k else ~result
            n_here = int(np.count_nonzero(here))
            n_moved += n_here
            if n_here == lanes.shape[0]:
                return [(target, selection)]
            if n_here:
                moves.append((target, lanes[here]))
        if n_moved < lanes.shape[0]:
            raise EmulationError(f"branch index over {len(block.targets)} targets")
        return moves

    def send(self, target, lanes):
        if lanes is None:
            lanes = np.arange(self.machine.n_lanes)
        if target is None:
            for target, freed in self.barriers.leave(lanes):
                self.send(target, freed)
        elif target.number in self.waiting:
            self.waiting[target.number].append(lanes)
        else:
            self.waiting[target.number] = [lanes]
            heapq.heappush(self.heap, target.number)

    def joined(self, parts):
        lanes = np.sort(np.concatenate(parts), kind="stable") if len(parts) > 1 else parts[0]
        return None if lanes.shape[0] == self.machine.n_lanes else lanes

    def count(self, counters):
        for block, n_times in zip(self.blocks, self.n_issued.tolist(), strict=True):
            if n_times:
                issued = Counter(block.issued)
                counters.instructions.update({opcode: n * n_times for opcode, n in issued.items()})
        counters.mma += self.machine.n_mma
        counters.barriers += self.barriers.n_opened

    def instruction_of(self, error):
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            name = frame.f_code.co_filename
            if name.startswith("<ptx block "):
                return self.machine.unit.instruction_at(int(name[11:-1]), line)
        block = self.blocks[self.number]
        return block.barrier or (block.instructions[0] if block.instructions else None)


class Barrier:
    def __init__(self, n_blocks):
        self.n_arrived = np.zeros(n_blocks, np.int64)
        self.n_expected = np.zeros(n_blocks, np.int64)  # 0: all living threads
        self.waiting = []  # (block, lanes, predicate, instruction)


class BlockBarriers:
    """`bar` and `barrier`, by number. Blocks reach and leave them independently."""

    def __init__(self, machine):
        self.machine = machine
        self.barriers = {}
        self.incomplete = {}  # warp: (mask, instruction) that waits for the rest of the warp
        self.n_opened = 0

    def arrive(self, instruction, target, numbers, count, predicate):
        """[(block, lanes)] that need not wait any longer."""
        machine = self.machine
        if instruction.name == "bar" or instruction.has("aligned"):
            self._check_aligned(instruction)
        lanes = machine.active_lanes()
        plain = count is None and not instruction.has("red") and not instruction.has("arrive")
        everyone = lanes.shape[0] == machine.n_alive_in_block.sum()
        if plain and everyone and not any(barrier.waiting for barrier in self.barriers.values()):
            self._opened(np.ones(machine.n_blocks, bool))
            return [(target, machine.selection)]
        numbers = np.broadcast_to(0 if numbers is None else numbers, lanes.shape)
        if predicate is not None:
            predicate = np.broadcast_to(predicate, lanes.shape)
        moves = []
        for number in np.unique(numbers).tolist():
            here = numbers == number
            barrier = self.barriers.setdefault(number, Barrier(machine.n_blocks))
            arrived = lanes[here]
            block = arrived // machine.lanes_per_block
            if count is None:
                np.add.at(barrier.n_arrived, block, 1)
            else:  # whole warps arrive
                barrier.n_expected[block] = np.broadcast_to(count, lanes.shape)[here]
                np.add.at(
                    barrier.n_arrived, np.unique(arrived // 32) * 32 // machine.lanes_per_block, 32
                )
            if instruction.has("arrive"):
                moves.append((target, arrived))
            else:
                part = None if predicate is None else predicate[here]
                barrier.waiting.append((target, arrived, part, instruction))
        return moves + self._open()

    def _check_aligned(self, instruction):
        machine, warps = self.machine, self.machine.warps()
        for row, warp in enumerate(warps.numbers.tolist()):
            if warp in self.incomplete:
                mask, other = self.incomplete[warp]
                raise DivergentCollective(
                    f"{instruction.opcode}: lanes {int(warps.masks[row]):#010x} of"
                    f" {machine.warp_name(warps, row)} are here while its lanes {mask:#010x} wait"
                    f" at line {other.line} ({other.text})"
                )
        if not warps.is_full:
            alive = machine.alive.reshape(-1, 32)[warps.numbers]
            for row in np.flatnonzero((warps.active != alive).any(axis=1)):
                self.incomplete[int(warps.numbers[row])] = int(warps.masks[row]), instruction

    def _open(self):
        machine, moves = self.machine, []
        for barrier in self.barriers.values():
            needed = np.where(barrier.n_expected > 0, barrier.n_expected, machine.n_alive_in_block)
            ready = (barrier.n_arrived > 0) & (barrier.n_arrived >= needed)
            if not ready.any():
                continue
            self._opened(ready)
            self._reduce(barrier, ready)
            left = []
            for target, lanes, predicate, instruction in barrier.waiting:
                goes = ready[lanes // machine.lanes_per_block]
                if goes.any():
                    moves.append((target, lanes[goes]))
                if not goes.all():
                    part = None if predicate is None else predicate[~goes]
                    left.append((target, lanes[~goes], part, instruction))
            barrier.waiting = left
            barrier.n_arrived[ready] = barrier.n_expected[ready] = 0
        return moves

    def _opened(self, ready):
        machine = self.machine
        self.n_opened += int(ready.sum())
        machine.block_epochs[ready] += 1
        warps_per_block = machine.lanes_per_block // 32
        for warp in [w for w in self.incomplete if ready[w // warps_per_block]]:
            del self.incomplete[warp]

    def _reduce(self, barrier, ready):
        """Write the results of `bar.red` for the blocks that are ready."""
        machine = self.machine
        n_true, n_all = np.zeros((2, machine.n_blocks), np.int64)
        waiting = [entry for entry in barrier.waiting if entry[2] is not None]
        for _, lanes, predicate, _ in waiting:
            block = lanes // machine.lanes_per_block
            np.add.at(n_true, block, predicate)
            np.add.at(n_all, block, 1)
        for _, lanes, _, instruction in waiting:
            here = lanes[ready[lanes // machine.lanes_per_block]]
            block = here // machine.lanes_per_block
            values = n_true if instruction.has("popc") else n_true > 0
            if instruction.has("and"):
                values = n_true == n_all
            slot = instruction.operands[0].slot
            dtype = REGISTER_DTYPES[machine.program.register_types[slot]]
            new = values[block].astype(dtype)
            if here.shape[0]:
                old = machine.registers[slot]
                machine.registers[slot] = merge(old, new, here, machine.n_lanes)

    def leave(self, lanes):
        """Remove lanes that end; returns the [(block, lanes)] that waited only for them."""
        machine = self.machine
        machine.alive[lanes] = False
        np.subtract.at(machine.n_alive_in_block, lanes // machine.lanes_per_block, 1)
        return self._open()

    def check_all_left(self):
        for number, barrier in self.barriers.items():
            for _, lanes, _, instruction in barrier.waiting:
                machine = self.machine
                name = machine.thread_name(machine.threads(lanes[:1])[0])
                raise Deadlock(
                    f"{lanes.shape[0]} threads, {name} the first, wait at barrier {number}"
                    " and no thread is left that could open it"
                ).at(instruction.line, instruction.text, machine.program.kernel.name)
