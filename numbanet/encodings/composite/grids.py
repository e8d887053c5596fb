"""Grids within an encoding, at any depth."""

from collections.abc import Iterator

from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.composite.pair import AbstractPair
from numbanet.encodings.grid import Grid


def grids_within(encoding: AbstractEncoding, first_param: int = 0) -> Iterator[tuple[Grid, int]]:
    """Grids in the order of their parameters, each with the first of these."""
    for part in encoding.parts:
        found, first = part.encoding, first_param + part.first_param
        if isinstance(found, Grid):
            yield found, first
        elif isinstance(found, AbstractPair):  # whose sides have one kernel: a Sum or a Product
            yield from grids_within(found.left, first)
            yield from grids_within(found.right, first + found.left.n_params)
