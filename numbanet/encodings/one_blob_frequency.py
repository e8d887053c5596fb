"""OneBlobFrequency, or NRC: the encoding of Neural Radiance Caching.

Mueller et al. 2021, Real-time Neural Radiance Caching for Path Tracing, table 1: the position as
triangle waves, directions and roughness as blobs, reflectances as they are.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.encodings.composite.encoding import Composite, Nested
from numbanet.encodings.identity import Identity
from numbanet.encodings.one_blob import OneBlob
from numbanet.encodings.triangle_wave import TriangleWave
from numbanet.encodings.wrapper import AbstractWrapper
from numbanet.registry import check, derived, register

N_WAVES, N_BLOBS = 3, 5  # inputs that are encoded as each


@register("encoding", "OneBlobFrequency", "NRC")
@dataclass(frozen=True)
class OneBlobFrequency(AbstractWrapper):
    """TriangleWave of inputs 0 to 2, OneBlob of inputs 3 to 7, Identity of those that are left."""

    n_dims: int = derived()
    n_frequencies: int = 12
    n_bins: int = 4

    def __post_init__(self):
        check(self.n_dims >= N_WAVES + N_BLOBS, "n_dims", self.n_dims, "8 or more")
        _ = self.encoding  # raises where an option is wrong

    @cached_property
    def encoding(self):
        first_rest = N_WAVES + N_BLOBS
        nested = (
            Nested(TriangleWave(n_dims=N_WAVES, n_frequencies=self.n_frequencies), 0),
            Nested(OneBlob(n_dims=N_BLOBS, n_bins=self.n_bins), N_WAVES),
        )
        if self.n_dims > first_rest:
            nested += (Nested(Identity(n_dims=self.n_dims - first_rest), first_rest),)
        return Composite(n_dims=self.n_dims, nested=nested)
