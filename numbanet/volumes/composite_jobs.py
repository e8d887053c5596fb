"""Compositing, forward and backward: one ray is one job; see compositing.py."""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import HALF, ONE, ZERO, device, exp, exp_minus_one, local_array
from numbanet.storage.views import float_matrix, float_vector, uint32_vector
from numbanet.volumes.launch import Job

ANY = np.uint32(0xFFFFFFFF)


@cache
def composite_ray(n_channels: int):
    @device
    def composite_ray(first, count, samples, least, colour, transmittances):
        densities, shades, starts, lengths = samples
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
        return light, depth

    return composite_ray


@cache
def gradient_ray(n_channels: int):
    @device
    def gradient_ray(i, first, count, samples, gradients, background, dl_ddensities, dl_dshades):
        densities, shades, starts, lengths, transmittances = samples
        dl_dcolours, dl_dopacities, dl_ddepths = gradients
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

    return gradient_ray


@cache
def forward_job(n_channels: int) -> Job:
    ray = composite_ray(n_channels)

    @device
    def finish(i, colour, light, depth, background, outputs):
        colours, opacities, depths = outputs
        for c in range(n_channels):
            colours[i, c] = colour[c] + light * background[c]
        opacities[i], depths[i] = ONE - light, depth

    @ParallelKernel
    def composite_on_host(
        n, densities, shades, starts, lengths, ranges, backgrounds, n_backgrounds, least,
        colours, opacities, depths, transmittances,
    ):  # fmt: skip
        for j in prange(n):
            i, colour = np.uint32(j), local_array(n_channels)
            light, depth = ray(
                ranges[i, 0], ranges[i, 1], (densities, shades, starts, lengths), least, colour,
                transmittances,
            )  # fmt: skip
            background = backgrounds[i % n_backgrounds]
            finish(i, colour, light, depth, background, (colours, opacities, depths))

    def composite_on_device(
        n: UInt, pdensities: Address, pshades: Address, pstarts: Address, plengths: Address,
        pranges: Address, pbackgrounds: Address, n_backgrounds: UInt, least: Float,
        pcolours: Address, popacities: Address, pdepths: Address, ptransmittances: Address,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            ranges, colour = uint32_vector(pranges, 2 * n), local_array(n_channels)
            samples = (
                float_vector(pdensities, ANY), float_matrix(pshades, ANY, n_channels),
                float_vector(pstarts, ANY), float_vector(plengths, ANY),
            )  # fmt: skip
            light, depth = ray(
                ranges[2 * i], ranges[2 * i + 1], samples, least, colour,
                float_vector(ptransmittances, ANY),
            )  # fmt: skip
            background = float_matrix(pbackgrounds, n, n_channels)[i % n_backgrounds]
            outputs = (
                float_matrix(pcolours, n, n_channels), float_vector(popacities, n),
                float_vector(pdepths, n),
            )  # fmt: skip
            finish(i, colour, light, depth, background, outputs)

    return Job(composite_on_host, composite_on_device)


@cache
def backward_job(n_channels: int) -> Job:
    ray = gradient_ray(n_channels)

    @ParallelKernel
    def gradients_on_host(
        n, densities, shades, starts, lengths, transmittances, ranges, backgrounds, n_backgrounds,
        dl_dcolours, dl_dopacities, dl_ddepths, dl_ddensities, dl_dshades,
    ):  # fmt: skip
        for j in prange(n):
            i = np.uint32(j)
            ray(
                i, ranges[i, 0], ranges[i, 1],
                (densities, shades, starts, lengths, transmittances),
                (dl_dcolours, dl_dopacities, dl_ddepths), backgrounds[i % n_backgrounds],
                dl_ddensities, dl_dshades,
            )  # fmt: skip

    def gradients_on_device(
        n: UInt, pdensities: Address, pshades: Address, pstarts: Address, plengths: Address,
        ptransmittances: Address, pranges: Address, pbackgrounds: Address, n_backgrounds: UInt,
        pdl_dcolours: Address, pdl_dopacities: Address, pdl_ddepths: Address,
        pdl_ddensities: Address, pdl_dshades: Address,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            ranges = uint32_vector(pranges, 2 * n)
            samples = (
                float_vector(pdensities, ANY), float_matrix(pshades, ANY, n_channels),
                float_vector(pstarts, ANY), float_vector(plengths, ANY),
                float_vector(ptransmittances, ANY),
            )  # fmt: skip
            gradients = (
                float_matrix(pdl_dcolours, n, n_channels), float_vector(pdl_dopacities, n),
                float_vector(pdl_ddepths, n),
            )  # fmt: skip
            background = float_matrix(pbackgrounds, n, n_channels)[i % n_backgrounds]
            dl_dshades = float_matrix(pdl_dshades, ANY, n_channels)
            ray(
                i, ranges[2 * i], ranges[2 * i + 1], samples, gradients, background,
                float_vector(pdl_ddensities, ANY), dl_dshades,
            )  # fmt: skip

    return Job(gradients_on_host, gradients_on_device)
