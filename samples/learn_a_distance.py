"""Learn the signed distance to a shape from points on its surface: a loss of derivatives.

    python samples/learn_a_distance.py [STEPS]

What is known: the distance is 0 on the surface, and its gradient is the normal there and has length
1 everywhere (the eikonal equation). One call gives values and gradients, and one call takes the
gradient of a loss of both back to the parameters. The shape is a rounded box with a ball taken out
of a corner, whose distance we can compute to see how good the learned one is.

Gropp et al. 2020, Implicit Geometric Regularization for Learning Shapes. With PyTorch:
samples/learn_a_distance_torch.py.
"""

import math
import sys
import time

import numpy as np

import numbanet

N_SURFACE, N_SPACE = 1 << 10, 1 << 10  # points of a step
ON_SURFACE, NORMAL, EIKONAL = 100.0, 1.0, 1.0  # weights of the three terms
LEARNING_RATE = 5e-3
CONFIG = {
    "optimizer": {"otype": "Adam", "learning_rate": LEARNING_RATE, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 4,
        "log2_hashmap_size": 14,
        "base_resolution": 4,
        "per_level_scale": 1.5,
        "interpolation": "Smoothstep",
    },
    "network": {
        "otype": "FullyFusedMLP",
        "n_neurons": 32,
        "n_hidden_layers": 2,
        "activation": "Softplus",
    },
}

# The scene, in the unit cube.
HALF_SIZES, ROUNDING = np.array([0.24, 0.18, 0.2]), 0.04
BALL, RADIUS = np.array([0.26, 0.2, 0.22]), 0.17


def scene(points):
    """The distance to the surface, negative inside: [n, 3] -> [n, 1]."""
    beyond = np.abs(points - 0.5) - HALF_SIZES
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    box = outside + np.minimum(beyond.max(axis=1), 0) - ROUNDING
    return np.maximum(box, RADIUS - np.linalg.norm(points - 0.5 - BALL, axis=1))[:, None]


def normals_of(points, h=1e-4):
    """The gradient of the scene, by central differences: [n, 3] -> [n, 3]."""
    ends = [(scene(points + h * axis), scene(points - h * axis)) for axis in np.eye(3)]
    return np.concatenate([(after - before) / (2 * h) for after, before in ends], axis=1)


def surface_points(rng, n):
    """Random points on the surface, and their normals: found by walking down the distance."""
    points = rng.random((4 * n, 3))
    for _ in range(8):
        points -= scene(points) * normals_of(points)
    is_there = (np.abs(scene(points)[:, 0]) < 1e-4) & ((points > 0) & (points < 1)).all(axis=1)
    points = points[is_there][:n]
    return points, normals_of(points)


def ball(points):
    """The distance to a ball in the middle and its gradient, to which the model's are added.

    So what is inside is clear from the start.
    """
    centred = points - 0.5
    length = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return length - 0.25, centred / length


def step(model, surface, normals, space):
    """A step on all terms; the mean squared distance on the surface, and of |gradient| - 1."""
    n, points = len(surface), np.concatenate([surface, space]).astype(np.float32)
    found = model.derivatives(points, order=1)  # on a GPU these arrays lie there
    distance, gradient = ball(points)
    distance += np.asarray(found.values)
    gradient += np.asarray(found.jacobian)[:, 0]
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    excess = length - 1
    dl_ddistance = np.zeros_like(distance)
    dl_ddistance[:n] = ON_SURFACE * 2 / n * distance[:n]
    dl_dgradient = EIKONAL * 2 / len(points) * excess * gradient / np.maximum(length, 1e-6)
    dl_dgradient[:n] += NORMAL * 2 / n * (gradient[:n] - normals)
    found.backward(dl_ddistance, dl_dgradient[:, None])
    model.trainer.optimizer_step()
    return np.mean(distance[:n] ** 2), np.mean(excess**2)


def learn(n_steps=400, report=lambda step, losses: None):
    """A model of the scene's distance."""
    model = numbanet.create_from_config(n_input_dims=3, n_output_dims=1, config=CONFIG, seed=1)
    rng = np.random.default_rng(0)
    surface, normals = surface_points(rng, 1 << 15)
    for k in range(n_steps):
        decay = 0.5001 + 0.5 * math.cos(math.pi * k / n_steps)
        model.trainer.learning_rate = LEARNING_RATE * decay
        chosen = rng.integers(0, len(surface), N_SURFACE)
        report(k, step(model, surface[chosen], normals[chosen], rng.random((N_SPACE, 3))))
    return model


def quality(model, n=1 << 15):
    """The mean error within 0.05 of the surface, and the share of points on its right side."""
    points = np.random.default_rng(1).random((n, 3), np.float32)
    exact, learned = scene(points), ball(points)[0] + np.asarray(model(points))
    is_close = np.abs(exact) < 0.05
    error = np.mean(np.abs(learned - exact)[is_close])
    return error, np.mean(np.sign(learned) == np.sign(exact))


def main():
    n_steps, started = int(dict(enumerate(sys.argv)).get(1, 400)), time.perf_counter()

    def report(k, losses):
        if k % 100 == 0:
            print(f"step {k:5}   on the surface {losses[0]:.2e}   eikonal {losses[1]:.2e}")

    model = learn(n_steps, report)
    print(f"{n_steps} steps in {time.perf_counter() - started:.1f} s on the {model.network.device}")
    error, share = quality(model)
    print(f"mean error near the surface {error:.4f}, {100 * share:.2f} % on the right side")


if __name__ == "__main__":
    main()
