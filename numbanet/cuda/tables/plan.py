"""Division of the gradient of a grid's tables among blocks.

A level whose table fits the shared memory of a block is `resident`: a block adds up all samples of
a slice of the batch. A larger one is cut into bins of BIN entries: the edges of all samples are
first written as records, sorted by bin, and a block then adds up the records of one bin.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.encodings.parts import Part

NO_PARAMS = 0  # for functions that read levels, which on a GPU are constants
LOG2_BIN = 13
BIN = 1 << LOG2_BIN  # entries of a bin, of which a block has two features
MOST_BINS = 512  # of a level
JOBS = 128  # blocks for all resident levels, about one per multiprocessor
FEWEST_OF_SLICE = 4096  # samples, beside which its partial sums are cheap
PRICE_OF_DRAW = 4  # additions to memory
PIECES = 64  # into which a level's records are cut at least, by bins and by slices of the batch


@dataclass(frozen=True)
class Resident:
    """Level, some of whose features a block holds in shared memory."""

    level: int
    first_feature: int
    size: int  # entries
    first_param: int  # of the level, among the grid's
    first_sum: int  # of the level, among the partial sums of a slice


@dataclass(frozen=True)
class Binned:
    """Two features of a level whose entries are divided into bins."""

    level: int
    first_feature: int
    size: int
    first_param: int

    @property
    def n_bins(self) -> int:
        return -(-self.size // BIN)

    @property
    def n_slices(self) -> int:
        """Slices of the batch, so that coarse levels are no more work per block than fine ones."""
        return max(1, PIECES // self.n_bins)


@dataclass(frozen=True)
class TablePlan:
    """Plan of the blocks that add up gradients; `part` is a grid of the model's encoding."""

    part: Part
    max_shared_bytes: int

    @property
    def grid(self):
        return self.part.encoding

    @property
    def n_features(self) -> int:
        return self.grid.n_features_per_level

    @cached_property
    def _fits(self) -> tuple[bool, ...]:
        return tuple(4 * int(level.size) <= self.max_shared_bytes for level in self.grid.levels)

    def _first_param(self, k: int) -> int:
        return int(self.grid.levels[k].offset) * self.n_features

    @cached_property
    def resident_features(self) -> int:
        """Features that a block of a resident level holds."""
        sizes = [int(s.size) for s, fits in zip(self.grid.levels, self._fits, strict=True) if fits]
        n = self.n_features
        while n > 1 and 4 * n * max(sizes, default=0) > self.max_shared_bytes:
            n //= 2
        return n

    @cached_property
    def residents(self) -> tuple[Resident, ...]:
        jobs, first_sum = [], 0
        for k, level in enumerate(self.grid.levels):
            if self._fits[k]:
                size, places = int(level.size), (self._first_param(k), first_sum)
                features = range(0, self.n_features, self.resident_features)
                jobs += [Resident(k, f, size, *places) for f in features]
                first_sum += size * self.n_features
        return tuple(jobs)

    @property
    def n_resident_sums(self) -> int:
        """Number of partial sums of a slice, of all resident levels."""
        return sum({job.level: job.size * self.n_features for job in self.residents}.values())

    def blocks_of_residents(self, of_block: int) -> tuple[int, int]:
        """Blocks that have so many sums each, of each resident level."""
        most = max(job.size for job in self.residents) * self.n_features
        return -(-most // of_block), len({job.level for job in self.residents})

    @property
    def most_slices(self) -> int:
        """Largest number of slices of a batch, each of which has blocks for all resident levels."""
        return max(1, JOBS // max(len(self.residents), 1))

    def n_slices(self, n: int) -> int:
        """Slices of a batch of n: few for a small one, since each has sums of all entries."""
        return max(1, min(self.most_slices, n // FEWEST_OF_SLICE))

    @property
    def resident_bytes(self) -> int:
        """Bytes of shared memory of a block of a resident level."""
        return 4 * self.resident_features * max((job.size for job in self.residents), default=0)

    @cached_property
    def binned(self) -> tuple[Binned, ...]:
        return tuple(
            Binned(k, f, int(level.size), self._first_param(k))
            for k, (level, fits) in enumerate(zip(self.grid.levels, self._fits, strict=True))
            if not fits
            for f in range(0, self.n_features, 2)
        )

    @property
    def n_offsets(self) -> int:
        """Offsets per level: the start of each bin among sorted records, and the end."""
        return max((job.n_bins for job in self.binned), default=0) + 1

    @property
    def n_reductions(self) -> int:
        """Reductions of two features in memory that a sample would need otherwise.

        A random corner counts as several, since it has to be drawn.
        """
        n_corners = self.grid.n_edges * self.grid.n_ends
        if self.grid.stochastic_interpolation:
            n_corners = PRICE_OF_DRAW
        return self.grid.n_levels * n_corners * max(self.n_features // 2, 1)

    @property
    def is_possible(self) -> bool:
        return all(each.n_bins <= MOST_BINS for each in self.binned)
