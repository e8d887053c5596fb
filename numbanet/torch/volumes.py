"""numbanet.volumes for tensors, with autograd, like nerfacc's estimator and rendering.

A grid works where it was made, on the CPU or a GPU, and so do samples of it. Marching has no
derivative; compositing has those of densities, colours and background.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from numbanet import volumes
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.random import Pcg32
from numbanet.shown import shown


@dataclass(frozen=True)
class Samples:
    """Intervals along rays, those of a ray one after another.

    Args:
        positions: the middles of the intervals, float32 [n, 3].
        starts, ends: distances along the ray, float32 [n].
        rays: the number of each sample's ray, int64 [n].
        packed: the same as arrays of numbanet.
    """

    positions: Tensor
    starts: Tensor
    ends: Tensor
    rays: Tensor
    packed: volumes.Samples

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.starts)

    @property
    def n_rays(self) -> int:
        """Number of rays."""
        return self.packed.n_rays


class OccupancyGrid:
    """Occupancy bits of a scene; see numbanet.volumes.OccupancyGrid.

    Args:
        box, resolution, n_levels: as there.
        device: of PyTorch's, where the rays will be.
        seed: of the points at which densities are asked for.
    """

    def __init__(
        self, box: Any = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), resolution: int = 128,
        n_levels: int = 1, *, device: Any = "cpu", seed: int = 1337,
    ):  # fmt: skip
        place = torch.device(device)
        name = place.type if place.index is None else str(place)
        self.grid = volumes.OccupancyGrid(
            box, resolution, n_levels, device="cpu" if place.type == "cpu" else name
        )
        self._rng = Pcg32(seed)

    @torch.no_grad()
    def update(
        self, density: Callable[[Tensor], Tensor], *, threshold: float, part: int = 0,
        n_parts: int = 1, decay: float = 0.95,
    ) -> None:  # fmt: skip
        """Update the bits with the density at a random point of each cell.

        Args:
            density: takes positions, float32 [n, 3], and returns densities [n] or [n, 1].
            threshold, part, n_parts, decay: see numbanet.volumes.OccupancyGrid.update.
        """
        self.grid.update(
            lambda positions: density(tensor(positions)).detach().float().contiguous(), self._rng,
            threshold=threshold, part=part, n_parts=n_parts, decay=decay,
        )  # fmt: skip

    @torch.no_grad()
    def march(
        self, origins: Tensor, directions: Tensor, step: float, *, stratified: bool = False,
        **limits: float,
    ) -> Samples:  # fmt: skip
        """Intervals of rays outside of empty cells.

        Args:
            origins, directions: [n_rays, 3].
            step: the length of an interval.
            stratified: begin each ray at a random part of a step.
            limits: `near`, `far` and `cone` of numbanet.volumes.OccupancyGrid.march.
        """
        rays = [each.detach().float().contiguous() for each in (origins, directions)]
        offsets = torch.rand(len(origins), device=origins.device) if stratified else None
        return as_tensors(self.grid.march(*rays, step, offsets=offsets, **limits))


def visible(samples: Samples, densities: Tensor, *, least: float = 1e-4) -> tuple[Samples, Tensor]:
    """Samples that at least a fraction `least` of the light reaches, and their indices, int64."""
    densities = densities.detach().float().reshape(-1).contiguous()
    kept, sources = volumes.visible(samples.packed, densities, least=least)
    return as_tensors(kept), integers(sources)


def composite(
    samples: Samples,
    densities: Tensor,
    colours: Tensor,
    background: Tensor | None = None,
    *,
    least: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composite samples along rays: colours [n_rays, n_channels], opacities and depths [n_rays].

    Args:
        densities: per unit of length, [n] or [n, 1].
        colours: [n, n_channels], 1 to 32 channels.
        background: [n_channels] or [n_rays, n_channels]; black by default.
        least: samples that less than this part of the light reaches are left out.

    Raises:
        ValueError: the tensors do not fit.
    """
    seen, opacities, depths = Composite.apply(
        samples.packed, densities.float().reshape(-1), colours.float(), least
    )
    if background is not None:
        n_channels = seen.shape[1]
        allowed = (n_channels,), (1, n_channels), (samples.n_rays, n_channels)
        if not isinstance(background, Tensor) or tuple(background.shape) not in allowed:
            raise ValueError(
                f"background: expected a tensor [{n_channels}] or [{samples.n_rays}, "
                f"{n_channels}], got {shown(getattr(background, 'shape', background))}"
            )
        seen = seen + (1 - opacities)[:, None] * background
    return seen, opacities, depths


class Composite(torch.autograd.Function):
    """Compositing in front of black, by numbanet's kernels."""

    @staticmethod
    def forward(ctx, packed, densities, colours, least):
        ctx.save_for_backward(densities, colours)  # which PyTorch checks for changes
        densities, colours = densities.detach().contiguous(), colours.detach().contiguous()
        seen = volumes.composite(packed, densities, colours, least=least)
        ctx.seen = seen
        return tensor(seen.colours), tensor(seen.opacities), tensor(seen.depths)

    @staticmethod
    @once_differentiable
    def backward(ctx, dl_dcolours, dl_dopacities, dl_ddepths):
        _ = ctx.saved_tensors  # raises if they were changed, or given back
        gradients = volumes.composite_backward(
            ctx.seen, dl_dcolours.contiguous(), dl_dopacities=dl_dopacities.contiguous(),
            dl_ddepths=dl_ddepths.contiguous(),
        )  # fmt: skip
        return None, *map(tensor, gradients), None


def as_tensors(samples: volumes.Samples) -> Samples:
    """Samples whose arrays are tensors, in the same memory."""
    positions, starts, lengths = map(tensor, (samples.positions, samples.starts, samples.lengths))
    return Samples(positions, starts, starts + lengths, integers(samples.rays), samples)


def tensor(array: Any) -> Tensor:
    """Tensor of an array, in the same memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def integers(array: Any) -> Tensor:
    """uint32 numbers below 2^31 as int64, which PyTorch can index with."""
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array.view(np.int32)).long()
    signed = DeviceArray(array.shape, np.dtype(np.int32), array.address, array.owner, array.device)
    return torch.from_dlpack(signed).long()
