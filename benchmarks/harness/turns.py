"""Calls timed in turns, so that disturbances of the machine slow all of them."""

import time

N_WARM, N_ROUNDS = 5, 7


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
