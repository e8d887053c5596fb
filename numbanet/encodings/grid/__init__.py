"""Multiresolution grid encoding."""

from numbanet.encodings.grid.encoding import Grid as Grid
