"""Calls timed in turns, so that disturbances of the machine slow all of them."""

import time
from functools import partial

import numpy as np

N_WARM, N_ROUNDS = 5, 7
ROUND, MOST_CALLS = 1 << 24, 60  # samples of a round, and its calls


def in_turns(measure, calls, n_rounds=N_ROUNDS, n_warm=N_WARM):
    """Results of measure(call) for each named call, round by round, as name -> list."""
    found = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(n_warm):
            call()
    for _ in range(n_rounds):
        for name, call in calls.items():
            found[name].append(measure(call))
    return found


def microseconds(call, n_calls, synchronize=lambda: None):
    """Microseconds of one call, by the wall clock, the device synchronised at both ends."""
    synchronize()
    begun = time.perf_counter()
    for _ in range(n_calls):
        call()
    synchronize()
    return 1e6 * (time.perf_counter() - begun) / n_calls


def on_device(device, calls, n):
    """Microseconds of calls of n samples each on a GPU, in turns, as name -> list."""
    n_calls = max(min(MOST_CALLS, ROUND // n), 5)
    return in_turns(partial(microseconds, n_calls=n_calls, synchronize=device.synchronize), calls)


def medians(times):
    """Text with the median of each, the least and the most."""
    return ", ".join(
        f"{name} {np.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"
        for name, each in times.items()
    )
