"""Several encodings of parts of the inputs, combined into one."""

from numbanet.encodings.composite.encoding import Composite as Composite
