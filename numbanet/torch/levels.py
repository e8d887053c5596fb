"""Levels of grids up to which samples are read, as the last column of a module's inputs."""

from typing import Any

import torch

from numbanet.coarse_to_fine import MOST
from numbanet.shown import shown
from numbanet.torch import descriptions, passes


def with_level(x: torch.Tensor, max_level: Any, description: str) -> tuple[torch.Tensor, str]:
    """Inputs with a level as the last column, and the description of the model that reads it.

    Tensors on a GPU are not waited for: where they are NaN, so are the outputs.

    Args:
        x: [n, n_input_dims].
        max_level: a number, or one for each sample [n]; None to leave all as it is.

    Raises:
        TypeError: the model has no grid.
        ValueError: the levels are no numbers from 0 to 1, or not one for each sample.
    """
    if max_level is None:
        return x, description
    return torch.cat([x, column_of(max_level, x)], dim=1), descriptions.with_levels(description)


def column_of(max_level: Any, x: torch.Tensor) -> torch.Tensor:
    """Levels as a column for the inputs x, float32 [n, 1], without a gradient."""
    try:
        column = torch.as_tensor(max_level, device=x.device).detach()
        if column.is_complex():
            raise TypeError("complex")
        column = column.to(torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"max_level: {shown(max_level)} are no numbers") from error
    n = x.shape[0]
    if column.dim() == 0:
        column = column.expand(n, 1)
    elif column.dim() == 1:
        column = column[:, None]
    if column.shape != (n, 1):
        raise ValueError(
            f"max_level: expected a number or shape [{n}], as x has rows, got {list(column.shape)}"
        )
    traced = torch.compiler.is_compiling() or passes.is_traced(x, column)
    if x.device.type == "cpu" and not traced:
        wrong = ((column >= 0) & (column <= MOST)).logical_not().nonzero()
        if len(wrong):
            i = int(wrong[0, 0])
            raise ValueError(
                f"max_level: {float(column[i, 0])} of sample {i} is not allowed; use numbers from "
                "0 to 1"
            )
    return column
