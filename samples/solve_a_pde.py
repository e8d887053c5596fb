"""Solve Poisson's or Helmholtz' equation on a square by a network: train its Laplacian (a PINN).

    python samples/solve_a_pde.py [poisson|helmholtz] [STEPS]

    u_xx + u_yy + k^2 u = f  in (0, 1)^2,  u = 0 on the boundary,  with k = 0 for Poisson

The solution is u = b N: a function b that is 0 on the boundary and a network N, so that there is no
loss of the boundary. A step asks for the network's values, gradients and Laplacians at random
points, makes those of u by the product rule, and gives the gradient of the mean of the squared
residual back.

Lagaris et al. 1998, Artificial Neural Networks for Solving Ordinary and Partial Differential
Equations; Raissi et al. 2019, Physics-informed neural networks.
"""

import math
import sys
import time

import numpy as np

import numbanet

N_POINTS = 512  # of a step
LEARNING_RATE = 1e-2
CONFIG = {
    "optimizer": {"otype": "Adam", "learning_rate": LEARNING_RATE, "epsilon": 1e-15},
    "encoding": {"otype": "Frequency", "n_frequencies": 2},
    "network": {
        "otype": "CutlassMLP",
        "n_neurons": 32,
        "n_hidden_layers": 2,
        "activation": "Tanh",  # smooth, so that there are second derivatives
    },
}


class Equation:
    """An equation whose solution is known: a product of sines, m and n half waves long.

    Args:
        k: the wave number, 0 for Poisson's equation.
    """

    def __init__(self, k, m, n):
        self.k, self.m, self.n = k, m, n

    def solution(self, x):
        """u at points [n, 2]: [n, 1]."""
        waves = np.sin(math.pi * np.array([self.m, self.n]) * x)
        return waves[:, :1] * waves[:, 1:]

    def source(self, x):
        """f at points [n, 2]: [n, 1]."""
        return (self.k**2 - math.pi**2 * (self.m**2 + self.n**2)) * self.solution(x)


# The wave number lies between those at which the square resonates, pi sqrt(m^2 + n^2).
EQUATIONS = {"poisson": Equation(0.0, 1, 2), "helmholtz": Equation(6.0, 2, 3)}


def boundary_factor(x):
    """b = 16 x (1 - x) y (1 - y) with its gradient and Laplacian: [n, 1], [n, 2], [n, 1]."""
    parts, slopes = 4 * x * (1 - x), 4 - 8 * x
    value = parts[:, :1] * parts[:, 1:]
    return value, slopes * parts[:, ::-1], -8 * parts.sum(axis=1, keepdims=True)


def step(model, equation, x):
    """A step on the residual at points [n, 2]; the mean of its square."""
    b, grad_b, laplacian_b = boundary_factor(x)
    found = model.derivatives(x)  # on a GPU these arrays lie there
    values, gradient, laplacian = map(np.asarray, (found.values, found.jacobian, found.laplacian))
    u = b * values
    laplacian_u = laplacian_b * values + b * laplacian
    laplacian_u += 2 * (grad_b * gradient[:, 0]).sum(axis=1, keepdims=True)
    residual = laplacian_u + equation.k**2 * u - equation.source(x)
    dl_dresidual = 2 / len(x) * residual
    found.backward(
        dl_dvalues=dl_dresidual * (laplacian_b + equation.k**2 * b),
        dl_djacobian=(dl_dresidual * 2 * grad_b)[:, None],
        dl_dlaplacian=dl_dresidual * b,
    )
    model.trainer.optimizer_step()
    return np.mean(residual**2)


def relative_error(model, equation, n=64):
    """||u - exact|| / ||exact|| on a grid of n x n points."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    u = boundary_factor(x)[0] * np.asarray(model(x))
    exact = equation.solution(x)
    return np.linalg.norm(u - exact) / np.linalg.norm(exact)


def solve(equation, n_steps=1500, report=lambda step, loss: None):
    """A model of the solution over the boundary factor."""
    model = numbanet.create_from_config(n_input_dims=2, n_output_dims=1, config=CONFIG, seed=1)
    rng = np.random.default_rng(0)
    for k in range(n_steps):
        decay = 0.5001 + 0.5 * math.cos(math.pi * k / n_steps)
        model.trainer.learning_rate = LEARNING_RATE * decay
        report(k, step(model, equation, rng.random((N_POINTS, 2), np.float32)))
    return model


def main():
    arguments = dict(enumerate(sys.argv))
    name, n_steps = arguments.get(1, "poisson"), int(arguments.get(2, 1500))
    if name not in EQUATIONS:
        raise SystemExit(f"{name!r} is not known; use {' or '.join(EQUATIONS)}")
    started = time.perf_counter()

    def report(k, loss):
        if k % 250 == 0:
            print(f"step {k:5}   mean squared residual {loss:.3g}")

    model = solve(EQUATIONS[name], n_steps, report)
    print(f"{n_steps} steps in {time.perf_counter() - started:.1f} s on the {model.network.device}")
    print(f"relative error {relative_error(model, EQUATIONS[name]):.2e}")


if __name__ == "__main__":
    main()
