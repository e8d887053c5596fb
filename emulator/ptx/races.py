"""Races: accesses of two threads to one place, one of them a store, that nothing orders.

Memory is seen in granules, as small as the smallest access of the kernel. A block barrier orders
the accesses of its block, `bar.warp.sync` those of its warp. Atomics race with plain accesses, not
with each other; relaxed loads and stores count as atomics.
"""

import numpy as np

THREAD, WARP, BLOCK, BLOCK_EPOCH, WARP_EPOCH, NUMBER = range(6)
MANY = -1  # several threads, warps or blocks; 0: none yet
WARPGROUP = -2  # in place of a thread and a warp: all four warps, so no warp orders it
CONFLICTS = {
    "load": ("store", "atomic"),
    "store": ("load", "store", "atomic"),
    "atomic": ("load", "store"),
}


def is_ordered(earlier, later):
    same_block = earlier[:, BLOCK] == later[:, BLOCK]
    same_warp = earlier[:, WARP] == later[:, WARP]
    by_block = same_block & (earlier[:, BLOCK_EPOCH] < later[:, BLOCK_EPOCH])
    by_warp = same_warp & (earlier[:, WARP_EPOCH] < later[:, WARP_EPOCH])
    return by_block | by_warp | (earlier[:, THREAD] == 0)


class RaceDetector:
    def __init__(self, n_granules):
        self.n_granules = n_granules
        self.history = {}  # by kind, from the first access of that kind on

    def check(self, kind, granules, accesses, changes, values):
        """Remember accesses, one row of `accesses` for each of `granules`.

        `changes` are the accesses that count as stores, `values` what they store. Returns None,
        or (position of an access, kind of the conflicting one, its row) of the first race.
        """
        for other in CONFLICTS[kind]:
            if other not in self.history:
                continue
            earlier = self.history[other].take(granules, axis=0)
            bad = ~is_ordered(earlier, accesses) & (earlier[:, THREAD] != accesses[:, THREAD])
            if kind == "store":
                bad &= changes
            if bad.any():
                k = int(np.argmax(bad))
                return k, other, earlier[k]
        if kind not in self.history:
            self.history[kind] = np.zeros((self.n_granules, 6), np.int32)
        is_shared = self._remember(self.history[kind], granules, accesses)
        if kind == "store" and is_shared.any():
            k = different_values(granules, values)
            if k is not None:
                return k, "store", self.history[kind][granules[k]]
        return None

    def _remember(self, history, granules, accesses):
        """Returns which accesses share their granule with another one of these."""
        earlier = history.take(granules, axis=0)
        fresh = is_ordered(earlier, accesses)[:, None]
        new = accesses.copy()
        same = earlier[:, :3] == accesses[:, :3]
        new[:, :3] = np.where(fresh | same, accesses[:, :3], MANY)
        history[granules] = accesses
        differs = history.take(granules, axis=0)[:, :3] != accesses[:, :3]
        history[granules] = new
        many = differs | (new[:, :3] == MANY)
        for column in np.flatnonzero(many.any(axis=0)):
            history[granules[many[:, column]], column] = MANY
        return differs[:, THREAD]


def different_values(granules, values):
    """The position of a store whose value differs from that of another to the same granule."""
    order = np.argsort(granules, kind="stable")
    again = granules[order][1:] == granules[order][:-1]
    wrong = again & (values[order][1:] != values[order][:-1])
    return int(order[1:][wrong][0]) if wrong.any() else None
