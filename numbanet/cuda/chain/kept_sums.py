"""Integer sums from the gradients of features that a fused kernel kept, for any encoding.

The counterpart of tables for grids with edges, for any encoding.
"""

from numbanet.cuda.chain.encoding_kernels import KeptFeatures, backward_sample
from numbanet.cuda.chain.integer_sums import IntegerSums
from numbanet.cuda.launch.rows import MOST_ROWS
from numbanet.cuda.memory.workspace import Kept, Workspace
from numbanet.networks.base import next_multiple
from numbanet.storage.views import FLOAT_BYTES, ITEM_SIZES

PIECE = 4  # samples that rows of kept words are padded to


class KeptSums:
    """Sums of the gradients of all parts of a model's encoding that have parameters."""

    def __init__(self, workspace: Workspace):
        self._own = workspace
        encoding = workspace.model.encoding
        self._n_columns = encoding.n_dims
        self._parts = [part for part in encoding.parts if part.encoding.n_params]
        first = min(part.first_column for part in self._parts) // 2
        stop = max(part.first_column + part.encoding.n_outputs for part in self._parts)
        self._kept = first, -(-stop // 2)
        precision = workspace.precision
        self._sums = [
            IntegerSums(
                *(workspace.device, workspace.rooms, backward_sample, part.encoding, precision),
                KeptFeatures(precision, part.first_column - 2 * first),
            )
            for part in self._parts
        ]

    def keep(self, n: int) -> Kept:
        """Range of the features whose gradients of n samples are kept, and memory for them."""
        first, stop = self._kept
        n_bytes = 4 * next_multiple(n, PIECE) * (stop - first)
        return Kept(first, stop, self._own.rooms("words", n_bytes))

    def __call__(self, inputs: int, n_all: int, params: int, gradients: int) -> None:
        """Add up the gradients of kept features; addresses are those of the encoding."""
        words, pitch = self.keep(n_all).address, next_multiple(n_all, PIECE)
        for start in range(0, n_all, MOST_ROWS):
            n = min(MOST_ROWS, n_all - start)
            for part, add_up in zip(self._parts, self._sums, strict=True):
                x = inputs + (start * self._n_columns + part.first_dim) * FLOAT_BYTES
                read = params + part.first_param * ITEM_SIZES[self._own.precision]
                of_batch = (
                    *(x, self._n_columns, start, n_all, read),
                    *(words + 4 * start, 1, pitch, 0, self._own.unscaled),
                )
                add_up(n, of_batch, gradients + part.first_param * FLOAT_BYTES)
