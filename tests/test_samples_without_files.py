"""The samples that need no files reach the quality that they promise."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SAMPLES = Path(__file__).parents[1] / "samples"


def sample(name):
    """The module of a sample, which has a `main` of its own."""
    spec = importlib.util.spec_from_file_location(name, SAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "n_steps"), [("poisson", 600), ("helmholtz", 1500)])
def test_equations_in_two_dimensions_are_solved(name, n_steps):
    module = sample("solve_a_pde")
    equation = module.EQUATIONS[name]
    model = module.solve(equation, n_steps)
    assert module.relative_error(model, equation) < 1e-3


@pytest.mark.parametrize("name", ["poisson", "helmholtz"])
def test_known_solutions_solve_the_equations(name):
    """By finite differences: the sources are those of the solutions."""
    equation, h = sample("solve_a_pde").EQUATIONS[name], 1e-4
    x = np.random.default_rng(0).random((20, 2))
    u = equation.solution
    laplacian = sum(u(x + step) + u(x - step) for step in h * np.eye(2)) - 4 * u(x)
    found = laplacian / h**2 + equation.k**2 * u(x)
    np.testing.assert_allclose(found, equation.source(x), atol=1e-3)


def test_cached_radiance_is_that_of_long_paths():
    """As bright as paths to their end, and with a smaller error where both have few."""
    module, rng = sample("cache_radiance"), np.random.default_rng(0)
    model = module.learn(60, rng)
    exact = module.image(rng, 64, module.MOST_BOUNCES)
    cached = module.image(rng, 16, 1, model)
    np.testing.assert_allclose(cached.mean(axis=(0, 1)), exact.mean(axis=(0, 1)), rtol=0.05)
    assert module.image(rng, 16, 1).mean() < 0.8 * exact.mean()
    to_the_end, cached = module.relative_errors(model, rng)
    assert cached < 0.9 * to_the_end


def test_a_distance_is_learned_without_pytorch():
    module = sample("learn_a_distance")
    error, share = module.quality(module.learn(120))
    assert error < 0.006
    assert share > 0.985
