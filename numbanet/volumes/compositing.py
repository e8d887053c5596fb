"""Compositing of samples along rays, and its gradients.

A sample of density s and length l absorbs a = 1 - exp(-s l) of what comes from behind it, and adds
w = T a of its colour, where T is what reaches it through the samples in front (Max 1995, as in
Mildenhall et al. 2020). Behind the last sample is the background. Samples behind the one after
which less than `least` of the light goes on count as absent.
"""

from dataclasses import dataclass
from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.shown import shown
from numbanet.target import AbstractTarget
from numbanet.volumes.composite_jobs import backward_job, forward_job
from numbanet.volumes.launch import shape_of
from numbanet.volumes.room import check_least
from numbanet.volumes.samples import Samples

MOST_CHANNELS = 32
LEAST = 1e-4


@dataclass(frozen=True)
class Composited:
    """Result of compositing; arrays are the target's.

    Args:
        colours: with the background, float32 [n_rays, n_channels].
        opacities: fraction of light absorbed by the samples, float32 [n_rays].
        depths: the distances of the samples' middles, weighted by their weights; float32 [n_rays].
        transmittances: fraction of light up to each sample, 0 for absent ones; float32 [n].
        samples, densities, shades, background: the arguments; shades are samples' colours.
    """

    colours: Array
    opacities: Array
    depths: Array
    transmittances: Array
    samples: Samples
    densities: Array
    shades: Array
    background: Array


def composite(
    samples: Samples,
    densities: ArrayLike,
    colours: ArrayLike,
    background: ArrayLike | None = None,
    *,
    least: float = LEAST,
    out: Composited | None = None,
) -> Composited:
    """Composite samples along rays.

    Args:
        densities: per unit of length, float32 [n], not negative.
        colours: float32 [n, n_channels], 1 to 32 channels.
        background: [n_channels], or [n_rays, n_channels]; black by default.
        least: samples that less than this part of the light reaches are left out; 0 for none.
        out: the result of an earlier call for as many rays and samples, to be overwritten.

    Raises:
        TypeError, ValueError: the arrays do not fit.
    """
    target, n, n_rays = samples.target, len(samples), samples.n_rays
    densities = target.vector(densities, "densities", n)
    n_channels = channels_of(colours)
    colours = target.matrix(colours, "colours", n_channels, n)
    behind = backgrounds(samples, background, n_channels)
    check_least(least)
    shapes = (n_rays, n_channels), (n_rays,), (n_rays,), (n,)
    if not isinstance(out, (Composited, type(None))):
        raise TypeError(f"out: expected what composite returned, got {shown(out)}")
    given = out and (out.colours, out.opacities, out.depths, out.transmittances)
    seen, opacities, depths, light = outputs(target, shapes, given)
    target.set_zero(light)  # also of samples that no ray has
    forward_job(n_channels)(
        target, n_rays, densities, colours, samples.starts, samples.lengths, samples.ranges,
        behind, behind.shape[0], float(least), seen, opacities, depths, light,
    )  # fmt: skip
    return Composited(seen, opacities, depths, light, samples, densities, colours, behind)


def composite_backward(
    composited: Composited,
    dl_dcolours: ArrayLike,
    *,
    dl_dopacities: ArrayLike | None = None,
    dl_ddepths: ArrayLike | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Gradients of densities [n] and of samples' colours [n, n_channels].

    That of the background is (1 - opacities) dl_dcolours.

    Args:
        composited: the result of `composite`; its arrays and arguments are unchanged.
        dl_dcolours: the gradient of the rays' colours, [n_rays, n_channels].
        dl_dopacities, dl_ddepths: [n_rays]; 0 by default.
        out: the result of an earlier call for as many samples, to be overwritten.

    Raises:
        TypeError, ValueError: the arrays do not fit.
    """
    samples, background = composited.samples, composited.background
    target, n, n_rays = samples.target, len(samples), samples.n_rays
    n_channels = composited.colours.shape[1]
    gradients = [target.matrix(dl_dcolours, "dl_dcolours", n_channels, n_rays)]
    for name, given in (("dl_dopacities", dl_dopacities), ("dl_ddepths", dl_ddepths)):
        none = given is None
        gradients.append(target.zeros(n_rays) if none else target.vector(given, name, n_rays))
    if out is not None and not (isinstance(out, (tuple, list)) and len(out) == 2):
        raise TypeError(f"out: expected what composite_backward returned, got {shown(out)}")
    dl_ddensities, dl_dshades = outputs(target, ((n,), (n, n_channels)), out)
    for each in (dl_ddensities, dl_dshades):
        target.set_zero(each)  # also of samples that no ray has
    backward_job(n_channels)(
        target, n_rays, composited.densities, composited.shades, samples.starts, samples.lengths,
        composited.transmittances, samples.ranges, background, background.shape[0],
        *gradients, dl_ddensities, dl_dshades,
    )  # fmt: skip
    return dl_ddensities, dl_dshades


def outputs(target: AbstractTarget, shapes: tuple, given: tuple | None) -> list:
    """Given arrays, if they have these shapes, or new ones."""
    if given is None:
        return [target.empty(*shape) for shape in shapes]
    return [target.output(each, "out", shape) for each, shape in zip(given, shapes, strict=True)]


def channels_of(colours: Any) -> int:
    """Number of channels of colours; raises ValueError unless it is 1 to MOST_CHANNELS."""
    shape = shape_of(colours)
    if len(shape) != 2 or not 1 <= shape[1] <= MOST_CHANNELS:
        raise ValueError(
            f"colours: expected shape [n, 1 to {MOST_CHANNELS} channels], got {list(shape)}"
        )
    return shape[1]


def backgrounds(samples: Samples, background: Any, n_channels: int) -> Any:
    """Rows of the background: one for all rays, or one for each."""
    target = samples.target
    if background is None:
        return target.zeros(1, n_channels)
    shape = shape_of(background)
    if len(shape) == 1:
        return target.vector(background, "background", n_channels).reshape(1, n_channels)
    rows = 1 if shape[:1] == (1,) else samples.n_rays
    return target.matrix(background, "background", n_channels, rows)
