"""Compositing, forward and backward: one ray is one job; see compositing.py."""

from functools import cache

import numpy as np

from numbanet.cuda.launch.types import Float, UInt
from numbanet.device import HALF, ONE, ZERO, exp, exp_minus_one, local_array
from numbanet.volumes.launch import Floats, Job, Ranges, Rows


@cache
def forward_job(n_channels: int) -> Job:
    @Job
    def composite(
        i, densities: Floats, shades: Rows(n_channels), starts: Floats, lengths: Floats,
        ranges: Ranges, backgrounds: Rows(n_channels), n_backgrounds: UInt, least: Float,
        colours: Rows(n_channels), opacities: Floats, depths: Floats, transmittances: Floats,
    ):  # fmt: skip
        first, count, colour = ranges[i, 0], ranges[i, 1], local_array(n_channels)
        for c in range(n_channels):
            colour[c] = ZERO
        light, depth, k = ONE, ZERO, first
        while k < first + count:
            if light < least:
                transmittances[k] = ZERO
            else:
                transmittances[k] = light
                absorbed = -exp_minus_one(-densities[k] * lengths[k])
                weight = light * absorbed
                for c in range(n_channels):
                    colour[c] += weight * shades[k, c]
                depth += weight * (starts[k] + HALF * lengths[k])
                light *= ONE - absorbed
            k += 1
        background = backgrounds[i % n_backgrounds]
        for c in range(n_channels):
            colours[i, c] = colour[c] + light * background[c]
        opacities[i], depths[i] = ONE - light, depth

    return composite


@cache
def backward_job(n_channels: int) -> Job:
    @Job
    def composite_backward(
        i, densities: Floats, shades: Rows(n_channels), starts: Floats, lengths: Floats,
        transmittances: Floats, ranges: Ranges, backgrounds: Rows(n_channels),
        n_backgrounds: UInt, dl_dcolours: Rows(n_channels), dl_dopacities: Floats,
        dl_ddepths: Floats, dl_ddensities: Floats, dl_dshades: Rows(n_channels),
    ):  # fmt: skip
        first, count, background = ranges[i, 0], ranges[i, 1], backgrounds[i % n_backgrounds]
        behind = ZERO  # light from behind a sample, times the gradient
        for c in range(n_channels):
            behind += dl_dcolours[i, c] * background[c]
        is_last = True
        for j in range(count):
            k = first + count - 1 - np.uint32(j)
            light = transmittances[k]
            if light == ZERO:
                dl_ddensities[k] = ZERO
                for c in range(n_channels):
                    dl_dshades[k, c] = ZERO
            else:
                length = lengths[k]
                kept = exp(-densities[k] * length)
                weight = -exp_minus_one(-densities[k] * length) * light
                behind *= light * kept if is_last else ONE
                is_last = False
                value = dl_dopacities[i] + dl_ddepths[i] * (starts[k] + HALF * length)
                for c in range(n_channels):
                    dl_dshades[k, c] = weight * dl_dcolours[i, c]
                    value += shades[k, c] * dl_dcolours[i, c]
                dl_ddensities[k] = length * (light * kept * value - behind)
                behind += weight * value

    return composite_backward
