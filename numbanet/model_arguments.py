"""Checks of arguments that several models share."""

from typing import Any

import numpy as np

from numbanet.random import Pcg32, seed_sequence
from numbanet.registry import ConfigError
from numbanet.shown import shown

MOST_DIMS = 2**20  # of inputs and of outputs
SEED_CONVENTIONS = ("bindings", "trainer")
MOST_SIGMA = 1e30
GRADIENT_MODES = ("overwrite", "accumulate", "ignore")


def initial_rng(seed: int, convention: str) -> Pcg32:
    """Generator of the initial parameters.

    tiny-cuda-nn seeds it with the number itself in its PyTorch bindings, and with the first word
    of C++'s std::seed_seq in its own Trainer; so the same seed gives different weights there.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: {shown(seed)} is not allowed; use an integer from 0")
    if convention not in SEED_CONVENTIONS:
        raise ValueError(f"seed_convention: {shown(convention)}; use one of {SEED_CONVENTIONS}")
    return Pcg32(int(seed) if convention == "bindings" else seed_sequence(int(seed)))


def check_dims(name: str, n: Any) -> int:
    """Return n as an int; raises ValueError unless it is a whole number from 1 to MOST_DIMS."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST_DIMS:
        raise ValueError(f"{name}: {shown(n)} is not allowed; use an integer from 1 to {MOST_DIMS}")
    return int(n)


def check_bool(name: str, value: Any) -> bool:
    """Return the value; raises ValueError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use True or False")
    return bool(value)


def check_sigma(value: Any) -> float:
    """Return a perturbation_sigma as a float; raises ConfigError if it is not allowed."""
    numbers = (int, float, np.integer, np.floating)
    is_number = isinstance(value, numbers) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= MOST_SIGMA):
        most = f"a number from 0 to {MOST_SIGMA:g}"
        raise ConfigError(f"perturbation_sigma: {shown(value)} is not allowed; use {most}")
    return float(value)


def check_gradient_mode(mode: str) -> None:
    """Raise ValueError unless the mode exists."""
    if mode not in GRADIENT_MODES:
        raise ValueError(f"gradient_mode: {shown(mode)}; use one of {', '.join(GRADIENT_MODES)}")


def check_options_of_step(
    gradient_mode: Any, run_optimizer: Any, use_inference_params: Any
) -> None:
    """Raise ValueError unless a training step can have these options."""
    check_gradient_mode(gradient_mode)
    check_bool("run_optimizer", run_optimizer)
    check_bool("use_inference_params", use_inference_params)


def check_integer(name: str, value: Any, least: int) -> int:
    """Return the value as an int; raises ValueError unless it is a whole number from `least`."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and value >= least):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use an integer from {least}")
    return int(value)


def as_number(name: str, value: Any) -> float:
    """Return a number, or an array or tensor of one, as a float; raises TypeError for all else."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a number, got {shown(value)}") from error
