"""Layout of a fused kernel: its block of threads and its shared memory.

A warp takes 32 samples, one for each lane where features are computed, and multiplies them as two
fragments of 16 rows. The block keeps all weights in shared memory, or has two matrices there at a
time, and for training the features and the hidden activations of its samples. Its warps form
groups, which wait for each other only to load the weights and to write what the block has added up.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from numbanet.cuda.launch.threads import WARP
from numbanet.encoded_network import EncodedNetwork
from numbanet.tiles.copies import PIECE, PIECE_HALVES
from numbanet.tiles.fragments import ROWS, row_pitch
from numbanet.tiles.warpgroups import columns_pitch

FRAGMENTS = WARP // ROWS  # of a warp's samples
SCALE = 16  # bytes beside private gradients
HALF_BYTES = 2
MOST_SUMS = 80  # registers of a thread that may hold gradients of weights
MOST_SHARED = 227 * 1024  # bytes; a GPU may have less
MOST_HIDDEN = 128  # neurons: both fragments and their sums fit the registers of 8 warps
MOST_NARROW = 64  # neurons, so that they fit those of 16


@dataclass(frozen=True)
class FusedLayout:
    """Sizes and places of a fused kernel; `model` has its encoding padded."""

    model: EncodedNetwork
    n_warps: int  # of a group
    trains: bool
    n_groups: int = 1
    n_private: int = 0  # partitions of the encoding whose gradients are added up in shared memory
    streams: bool = False  # matrices of weights come one after the other; only without gradients
    packs_outputs: bool = False  # rows of outputs are not padded, which costs conflicts of banks
    in_warpgroups: bool = (
        False  # four warps multiply together, and matrices lie in pieces; to train
    )

    @cached_property
    def group_threads(self) -> int:
        """Threads of a group, and samples that it takes at a time."""
        return WARP * self.n_warps

    @property
    def n_threads(self) -> int:
        """Threads of a block, and samples that it takes at a time."""
        return self.group_threads * self.n_groups

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Widths of the features, the hidden layers and the padded output."""
        return self.model.network.widths

    @cached_property
    def pitches(self) -> tuple[int, ...]:
        """Bytes of a row of each of these."""
        *pitches, of_outputs = map(row_pitch, self.widths)
        return *pitches, HALF_BYTES * self.widths[-1] if self.packs_outputs else of_outputs

    @cached_property
    def row_pitches(self) -> tuple[int, ...]:
        """Bytes from one sample to the next, of the features, hidden layers and output."""
        return (PIECE,) * len(self.pitches) if self.in_warpgroups else self.pitches

    @cached_property
    def piece_pitch(self) -> int:
        """Bytes from 8 numbers of a sample to the next 8."""
        return columns_pitch(self.n_threads) if self.in_warpgroups else PIECE

    def by_warpgroups(self, k: int) -> bool:
        """Whether matrix k is one that warpgroups multiply: all but the last one."""
        return self.in_warpgroups and k < self.model.network.n_hidden_layers

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Offset of each matrix in shared memory, if all of them stay there."""
        return tuple(accumulate(self._matrix_bytes[:-1], initial=0))

    @property
    def buffer_bytes(self) -> int:
        """Bytes of each of the two buffers through which matrices are streamed."""
        return max(self._matrix_bytes)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all matrices, or of two if they are streamed."""
        return 2 * self.buffer_bytes if self.streams else sum(self._matrix_bytes)

    @cached_property
    def _matrix_bytes(self) -> tuple[int, ...]:
        shapes = self.model.network.shapes
        pairs = zip(shapes, self.pitches, strict=False)
        return tuple(fan_out * pitch for (fan_out, _), pitch in pairs)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Offsets of the rows of features, hidden layers, output and noted maxima, and the end.

        Gradients replace the values that they are of.
        """
        pitches = self.pitches if self.trains else self.pitches[:1]
        sizes = [self.n_threads * pitch for pitch in pitches]
        if self.in_warpgroups:
            sizes = [width // PIECE_HALVES * self.piece_pitch for width in self.widths]
        return tuple(accumulate((*sizes, self.noted_bytes), initial=self.weights_bytes))

    @property
    def noted_bytes(self) -> int:
        """Bytes of the largest gradient of each pair of features, where tables may need these."""
        return 2 * self.widths[0] if self.trains and self.model.encoding.n_params else 0

    @property
    def shared_bytes(self) -> int:
        """Bytes of weights, rows and the private gradients of parameters."""
        return self.rows[-1] + 4 * self.n_private_params + (SCALE if self.n_private else 0)

    @cached_property
    def n_private_params(self) -> int:
        """Parameters of the encoding, the first ones, whose gradients a block adds up by itself."""
        return self.model.encoding.partition_param_ends[self.n_private - 1] if self.n_private else 0

    def with_private(self, shared_bytes: int) -> "FusedLayout":
        """Copy with as many private partitions as fit into so much shared memory."""
        rest = (shared_bytes - SCALE - self.rows[-1]) // 4
        ends = self.model.encoding.partition_param_ends
        return replace(self, n_private=sum(end <= rest for end in ends))

    @cached_property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Blocks of 16 x 16 gradients of each matrix: along the outputs, and the inputs."""
        return tuple((rows // ROWS, columns // ROWS) for rows, columns in self.model.network.shapes)

    @cached_property
    def blocks_per_warp(self) -> tuple[int, ...]:
        """Number of these blocks that a warp adds up, for each matrix."""
        return tuple(-(-m * n // self.n_warps) for m, n in self.blocks)

    @cached_property
    def first_sums(self) -> tuple[int, ...]:
        """Index of a thread's first sum of each matrix among all of its sums, and the end."""
        return tuple(accumulate((8 * n for n in self.blocks_per_warp), initial=0))


def takes_network(layout: FusedLayout) -> bool:
    """Whether a warp can multiply 16 samples through all layers.

    Widths are multiples of 16, so that fragments are whole; at most 128, so that a fragment and its
    sums stay in registers; there is a hidden layer, and no bias, which no fused kernel adds.
    """
    network = layout.model.network
    aligned = all(width % ROWS == 0 for width in layout.widths)
    narrow = max(layout.widths) <= MOST_HIDDEN
    return aligned and narrow and network.n_hidden_layers > 0 and not network.bias


def fits(layout: FusedLayout, max_shared_bytes: int = MOST_SHARED) -> bool:
    """Whether a kernel can be fused: the one place that decides it.

    The network is one that they take, and weights and rows fit the shared memory of a block. For
    training, the gradients of all weights also stay in registers until the end, and the hidden
    activation is differentiated at its output. Gradients of the inputs ask for nothing more.
    """
    if not takes_network(layout) or layout.shared_bytes > max_shared_bytes:
        return False
    if not layout.trains:
        return True
    from_output = not layout.model.network.activations[0].from_input
    return layout.first_sums[-1] <= MOST_SUMS and from_output
