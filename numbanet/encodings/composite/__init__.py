"""Combinations of encodings of parts of the inputs."""

from numbanet.encodings.composite.encoding import Composite as Composite
