"""Counters of a launch: instructions, memory traffic, bank conflicts, tensor-core operations."""

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np

from emulator.ptx.warp import unpack_bits

N_BANKS = 32
SECTOR_SHIFT = 5


@dataclass
class Counters:
    """Sums over launches; pass one to several launches, or add them up with `+`."""

    instructions: Counter = field(default_factory=Counter)  # opcode: times a warp issued it
    global_load_sectors: int = 0  # of 32 bytes, per warp instruction
    global_store_sectors: int = 0
    global_atomic_sectors: int = 0
    global_atomic_lanes: int = 0
    shared_atomic_lanes: int = 0
    shared_wavefronts: int = 0
    shared_conflicts: int = 0  # wavefronts beyond those without a bank conflict
    mma: int = 0
    barriers: int = 0
    launches: int = 0
    lines: dict = field(default_factory=dict)  # (kernel, line, text): Counter of one instruction

    def __add__(self, other):
        result = Counters()
        for part in (self, other):
            result.add(part)
        return result

    def add(self, other):
        for each in fields(self):
            own, more = getattr(self, each.name), getattr(other, each.name)
            if each.name == "lines":
                for key, counter in more.items():
                    own.setdefault(key, Counter()).update(counter)
            elif each.name == "instructions":
                own.update(more)
            else:
                setattr(self, each.name, own + more)

    @property
    def n_instructions(self):
        return self.instructions.total()

    def count_access(self, machine, access, space, index):
        warps = machine.warps()
        counts = Counter(requests=warps.n)
        if space == "global":
            name = {"load": "load", "atomic": "atomic"}.get(access.kind, "store")
            counts[f"global_{name}_sectors"] = n_sectors(warps, index * access.n_bytes)
        elif access.kind != "atomic":
            wavefronts, fewest = n_wavefronts(warps, index * access.n_bytes, access.n_bytes)
            counts["shared_wavefronts"] = wavefronts
            counts["shared_conflicts"] = wavefronts - fewest
        if access.kind == "atomic":
            counts[f"{space}_atomic_lanes"] = machine.n_active
        for name, count in counts.items():
            if name != "requests":
                setattr(self, name, getattr(self, name) + count)
        instruction = access.instruction
        key = (machine.program.kernel.name, instruction.line, instruction.text)
        self.lines.setdefault(key, Counter()).update(counts)


def n_distinct(rows, is_active):
    """Distinct values of the active entries of each row, summed over the rows."""
    rows = np.sort(np.where(is_active, rows, -1), axis=1)
    new = rows >= 0
    new[:, 1:] &= rows[:, 1:] != rows[:, :-1]
    return int(new.sum())


def n_sectors(warps, where):
    return n_distinct(warps.rows(where) >> SECTOR_SHIFT, unpack_bits(warps.masks))


def n_wavefronts(warps, where, n_bytes):
    """(wavefronts, wavefronts without conflicts) of shared-memory accesses.

    A warp's 8-byte accesses go in two halves, its 16-byte accesses in four quarters. Each then
    takes as many wavefronts as the fullest bank has different words.
    """
    n_parts = max(n_bytes // 4, 1)
    words = warps.rows(where).reshape(warps.n * n_parts, -1) >> 2
    is_active = unpack_bits(warps.masks).reshape(words.shape)
    words = (words[:, :, None] + np.arange(n_parts)).reshape(words.shape[0], -1)
    is_active = np.repeat(is_active, n_parts, axis=1)
    key = np.where(is_active, (words % N_BANKS << 40) + words, -1)
    key.sort(axis=1)
    new = key >= 0
    new[:, 1:] &= key[:, 1:] != key[:, :-1]
    row, _ = np.nonzero(new)
    per_bank = np.bincount(row * N_BANKS + (key[new] >> 40), minlength=words.shape[0] * N_BANKS)
    return int(per_bank.reshape(-1, N_BANKS).max(axis=1).sum()), int(is_active.any(axis=1).sum())
