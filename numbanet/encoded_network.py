"""Encoding with the network that reads its output: the components that an engine evaluates."""

from dataclasses import dataclass

from numbanet.encodings.base import AbstractEncoding
from numbanet.networks.base import AbstractMLP


@dataclass(frozen=True)
class EncodedNetwork:
    """Encoding, padded to the width of the network's input, and the network that reads it."""

    encoding: AbstractEncoding
    network: AbstractMLP

    def kernel_key(self) -> "EncodedNetwork":
        """Model with the same compiled code on the CPU, independent of the encoding's numbers."""
        return EncodedNetwork(self.encoding.kernel_key(), self.network)

    @property
    def n_encoded(self) -> int:
        """Width of the network's input."""
        return self.network.n_input_dims

    @property
    def n_params(self) -> int:
        return self.network.n_params + self.encoding.n_params
