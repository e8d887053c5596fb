"""Multiresolution permutohedral lattices: `Permutohedral`."""

from numbanet.encodings.permutohedral.encoding import Permutohedral as Permutohedral
