"""The least time a sample can take, counted by hand, at the speeds that cpu_ceilings.py measured.

A sample costs in the forward pass
- the network: 32*64 + 64*64 + 64*3 = 2048 + 4096 + 192 = 6336 multiply-adds,
- the grid: 16 levels x 4 corners = 64 gathers of a pair of features;
and in the training step
- the network three times: outputs, gradients of activations, gradients of weights, 19008 in all,
- the grid twice: 64 gathers, then 64 read-add-writes of a pair of gradients.
The optimizer passes once over all parameters, whatever the batch: it reads parameter, gradient and
three rows of state and writes four of them back, 36 bytes a parameter.
Left out, because they depend on how it is done: positions, weights and hashes of the corners
(about 16 x 30 operations), activations written and read again. So nothing can reach the floor.
"""

from benchmarks.harness.jobs import JOBS
from benchmarks.harness.report import size_of

N_MULTIPLY_ADDS, N_CORNERS, OPTIMIZER_BYTES = 6336, 64, 36 * JOBS["config_hash"].n_params


def floor(rates, kind, n):
    """Return the least nanoseconds a sample can take, by what they are needed for."""
    training = kind == "training"
    per_second = max(rates["multiply-adds"], rates["multiply-adds of np.matmul"])
    parts = {
        "network": N_MULTIPLY_ADDS * (3 if training else 1) / per_second,
        "gathers": N_CORNERS / rates["gathers"],
    }
    if training:
        parts["scatters"] = N_CORNERS / rates["scatters"]
        parts["optimizer"] = OPTIMIZER_BYTES / rates["copied bytes"] / n
    return {name: 1e9 * part for name, part in parts.items()}


def print_floor(report, name):
    """Print and note the ceilings, the floor of each result, and how far a method is from it."""
    rates = report["ceilings"]
    print(
        f"\nCeilings: {2e-9 * rates['multiply-adds']:.0f} GFLOP/s "
        f"(np.matmul {2e-9 * rates['multiply-adds of np.matmul']:.0f}), "
        f"copy {1e-9 * rates['copied bytes']:.1f} GB/s, "
        f"{1e-6 * rates['gathers']:.0f} M gathers/s and {1e-6 * rates['scatters']:.0f} M "
        "scatter-adds/s of feature pairs in the L2 cache"
    )
    print(f"Floor of a sample in ns, and the distance of {name} to it:")
    for result in report["results"]:
        parts = floor(rates, result["kind"], result["batch_size"])
        total = sum(parts.values())
        result["floor_nanoseconds"] = parts
        title = f"{result['kind']} {size_of(result['batch_size'])}"
        line = f"{title:15} {total:5.0f} = " + " + ".join(
            f"{what} {part:.0f}" for what, part in parts.items()
        )
        row = result["methods"].get(name)
        if row:
            measured = 1e3 / row["million_samples_per_second"]
            result["distance_to_floor"] = measured / total
            line += f"; measured {measured:.0f}, {measured / total:.1f} times the floor"
        print(line)
