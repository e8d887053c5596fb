"""Layout of wide training: weights in shared memory, all else in units of 32 samples.

A unit has the features, the hidden activations and the gradients of all layers of the samples that
a warp takes at a time, in global memory. Each is a matrix of 16 x 16 blocks, those of a fragment
one after the other; a block is four 8 x 8 matrices of 128 bytes, in the order of a lane's words.
So a lane's word is 4 bytes among 128 of its warp, and a row of 8 halves is 16 bytes among 128,
which ldmatrix reads without conflicts wherever a block has been copied to.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from numbanet.cuda.block.layout import FRAGMENTS, FusedLayout, takes_network
from numbanet.cuda.launch.threads import WARP
from numbanet.encoded_network import EncodedNetwork
from numbanet.tiles.fragments import ROWS

BLOCK_BYTES = 2 * ROWS * ROWS
UNITS = 2  # of a stage, which the gradients of the weights take at a time
MATRIX_BYTES, ROW_BYTES = BLOCK_BYTES // 4, 16  # of 8 x 8 halves


@dataclass(frozen=True)
class WideLayout:
    """Sizes and places of the kernels of wide training; `model` has its encoding padded."""

    model: EncodedNetwork
    n_warps: int
    goes_to_features: bool = False  # also where the encoding has no parameters
    streams: bool = False  # matrices of weights come one after the other

    @property
    def to_inputs(self) -> "WideLayout":
        """Layout with gradients of the features, from which those of the inputs are computed."""
        return self if self.model.encoding.n_params else replace(self, goes_to_features=True)

    @cached_property
    def block(self) -> FusedLayout:
        """Layout of a block's weights in shared memory."""
        return FusedLayout(self.model, self.n_warps, trains=False, streams=self.streams)

    @property
    def n_threads(self) -> int:
        return WARP * self.n_warps

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory of a block: its weights."""
        return self.block.weights_bytes

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the features, the hidden layers and the padded output."""
        return self.block.widths

    @property
    def n_hidden(self) -> int:
        return self.model.network.n_hidden_layers

    @property
    def whole(self) -> int:
        """Samples whose units are written together, even if the batch has fewer.

        Those of a stage; or of all warps of a block, where these wait for each other's matrices.
        """
        return WARP * (self.n_warps if self.streams else UNITS)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of a unit's matrix of each of these widths."""
        return tuple(FRAGMENTS * BLOCK_BYTES * (width // ROWS) for width in self.widths)

    @cached_property
    def _places(self) -> tuple[int, ...]:
        has_features = self.model.encoding.n_params > 0 or self.goes_to_features
        of_features = self.sizes[0] if has_features else 0
        values, gradients = self.sizes[:-1], (of_features, *self.sizes[1:])
        return tuple(accumulate((*values, *gradients), initial=0))

    @property
    def values(self) -> tuple[int, ...]:
        """Offsets in a unit of the features and the hidden activations."""
        return self._places[: self.n_hidden + 1]

    @property
    def gradients(self) -> tuple[int, ...]:
        """Offsets in a unit of the gradients of features, pre-activations and output."""
        return self._places[self.n_hidden + 1 : -1]

    @property
    def unit_bytes(self) -> int:
        return self._places[-1]


def trains_wide(layout: WideLayout, max_shared_bytes: int) -> bool:
    """Whether a network supports wide training: the one place that decides it.

    Fragments are whole and fit the registers, as in all fused kernels, and the weights, or two
    matrices where they come one after the other, fit the shared memory of a block.
    """
    return takes_network(layout.block) and layout.shared_bytes <= max_shared_bytes
