"""An encoding with the network that reads its output: the components that an engine evaluates."""

from dataclasses import dataclass

from numbanet.encodings.base import AbstractEncoding
from numbanet.networks.base import AbstractMLP


@dataclass(frozen=True)
class EncodedNetwork:
    """An encoding and the network that reads its padded output."""

    encoding: AbstractEncoding
    network: AbstractMLP

    @property
    def n_encoded(self) -> int:
        """Width of the network's input: features and padding."""
        return self.network.n_input_dims

    @property
    def column(self) -> int:
        """First column of the features; padding may come before them."""
        return self.n_encoded - self.encoding.n_outputs if self.encoding.padding_first else 0

    @property
    def n_params(self) -> int:
        return self.network.n_params + self.encoding.n_params
