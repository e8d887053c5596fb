"""The least time a sample can take, counted by hand, at the speeds that ceilings.py measured.

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

from image_job import N_PARAMS

N_MULTIPLY_ADDS, N_CORNERS, OPTIMIZER_BYTES = 6336, 64, 36 * N_PARAMS


def floor(rates, job, n):
    """Return the least nanoseconds a sample can take, by what they are needed for."""
    training = job == "training"
    per_second = max(rates["multiply-adds"], rates["multiply-adds of np.matmul"])
    parts = {
        "network": N_MULTIPLY_ADDS * (3 if training else 1) / per_second,
        "gathers": N_CORNERS / rates["gathers"],
    }
    if training:
        parts["scatters"] = N_CORNERS / rates["scatters"]
        parts["optimizer"] = OPTIMIZER_BYTES / rates["copied bytes"] / n
    return {name: 1e9 * part for name, part in parts.items()}
