"""Start of a job: with a new model, or with that of a snapshot of the same job."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numbanet
from numbanet.app.errors import UsageError

MOST_UNASKED = 1 << 24  # of a batch; a snapshot alone starts no larger ones, which take gigabytes


def create(n_inputs: int, n_outputs: int, config: Any, **options: Any) -> numbanet.TrainableModel:
    """Model of a config."""
    try:
        return numbanet.create_from_config(
            n_inputs, n_outputs, config, on_nonfinite="raise", **options
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(str(error)) from error


def load_saved(
    path: str | Path, device: Any, precision: str | None, read: Callable, command: str
) -> tuple[numbanet.TrainableModel, Any, Any]:
    """Model, job and course of a snapshot.

    Args:
        read: makes job and course of the metadata; raises KeyError or TypeError if they are others.
        command: which saved it, for messages.
    """
    try:
        model = numbanet.load(path, device=device, precision=precision, on_nonfinite="raise")
        return model, *read(model.metadata)
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise UsageError(f"'{path}' was not saved by {command} and cannot be resumed") from error


def check_batch_size(path: str | Path, asked: int | None, saved: int, samples: str) -> None:
    """Raise UsageError where a snapshot alone would take gigabytes."""
    if asked is None and saved > MOST_UNASKED:
        raise UsageError(
            f"'{path}' asks for {saved} {samples} per step; to allow it: --batch-size {saved}"
        )


def check_same(path: str | Path, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise UsageError where the requested job is not the saved one.

    Args:
        pairs: by a description of what was saved: what was asked for, None for nothing, and that.
    """
    for description, (asked, saved) in pairs.items():
        if asked is not None and asked != saved:
            raise UsageError(f"'{path}' was saved by a training {description}; it cannot change")


def check_steps_left(path: str | Path, n_steps: int, made: int) -> None:
    if n_steps <= made:
        raise UsageError(f"'{path}' has made {made} steps already; ask for more --steps")
