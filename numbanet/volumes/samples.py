"""Samples along rays, packed: the samples of a ray are contiguous."""

from dataclasses import dataclass, replace

from numbanet.array_types import Array
from numbanet.shown import shown
from numbanet.target import AbstractTarget


@dataclass(frozen=True)
class Samples:
    """Intervals along rays; arrays are the target's.

    Args:
        positions: the middles of the intervals, float32 [n, 3].
        starts: distances along the ray at which the intervals begin, float32 [n].
        lengths: of the intervals, float32 [n].
        rays: the number of each sample's ray, uint32 [n].
        ranges: first sample and number of samples of each ray, uint32 [n_rays, 2].
        total: number of samples, and how many there would have been, uint32 [2]; the arrays may be
            longer, with zeros behind, or what an earlier call left in `room`.
        target: of the arrays.
    """

    positions: Array
    starts: Array
    lengths: Array
    rays: Array
    ranges: Array
    total: Array
    target: AbstractTarget

    @property
    def n_rays(self) -> int:
        """Number of rays."""
        return self.ranges.shape[0]

    def __len__(self) -> int:
        """Length of the arrays."""
        return self.starts.shape[0]

    def count(self) -> int:
        """Number of samples; a GPU is waited for."""
        return int(self.target.to_host(self.total)[0])

    def first(self, n: int) -> "Samples":
        """Same samples with arrays of length n, in the same memory.

        Raises:
            ValueError: rays have more samples, or the arrays are shorter; a GPU is waited for.
        """
        least, most = self.count(), len(self)
        if not least <= n <= most:
            raise ValueError(f"first: {shown(n)} is not allowed; use {least} to {most}")
        return replace(
            self, positions=self.positions[:n], starts=self.starts[:n], lengths=self.lengths[:n],
            rays=self.rays[:n],
        )  # fmt: skip
