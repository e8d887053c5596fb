"""Plan of a training kernel of the CPU: its outputs, and the division of a batch."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.cpu.tile_buffers import TILE, BufferLayout
from numbanet.encoded_network import EncodedNetwork
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple

N_GROUPS = 32
ENCODED_ROWS = 2048  # of a slab, at most, that are encoded one level after the other
SLAB_FLOATS = 1 << 20  # 4 MiB of features stay in the last-level cache until they are used again


@dataclass(frozen=True)
class TrainingPlan:
    """Options of a training kernel: each combination is compiled on its own.

    The model is a kernel_key.
    """

    model: EncodedNetwork
    loss: AbstractLoss | None
    has_pdf: bool = False
    has_external_dl_dy: bool = False
    param_gradients: bool = True
    input_gradients: bool = False
    encoded: bool = False  # the features are given, and perhaps the hidden layers

    def group_rows(self, n: int, n_params: int) -> int:
        """Rows of a group for a batch of n, and a model with n_params parameters.

        There are fewer groups where their gradients would need much memory: more than the
        parameters and 160 bytes per sample.
        """
        n_affordable = (n_params + 40 * n) // self._n_weights
        n_groups = min(N_GROUPS, max(2, n_affordable // 2 * 2))
        return max(TILE, next_multiple(-(-min(n, self.slab_rows) // n_groups), TILE))

    @cached_property
    def _n_weights(self) -> int:
        return BufferLayout(self.model.network).n_weights

    @property
    def encoding_gradients(self) -> bool:
        """Whether the encoding has parameters, and their gradients are wanted."""
        return self.param_gradients and self.model.encoding.n_params > 0

    def encoded_rows(self, n: int, n_threads: int) -> int:
        """Rows that a thread encodes at once, of a batch of n; results do not depend on it."""
        own = -(-min(n, self.slab_rows) // n_threads)
        return min(ENCODED_ROWS, max(TILE, next_multiple(own, TILE)))

    @property
    def encodes_first(self) -> bool:
        """Whether all rows of a slab are encoded before the network takes them.

        Each tile of a network would read all tables, which do not fit the second-level cache.
        """
        return self.model.encoding.n_params > 0 and not self.encoded

    @property
    def needs_outputs(self) -> bool:
        """Whether outputs are read: by the loss, or by the derivative of their activation."""
        return self.loss is not None or self.model.network.activations[1].name != "None"

    @property
    def slab_rows(self) -> int:
        if self.model.encoding.needs_whole_batch:
            return 1 << 40
        return max(TILE, SLAB_FLOATS // self.model.n_encoded // TILE * TILE)
