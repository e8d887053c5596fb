"""Device code between the heads of a radiance field, and its loss: a job per sample or ray."""

import math

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import HALF, ONE, ZERO, at_most, device, exp
from numbanet.storage.views import float_matrix, float_vector, uint32_vector
from numbanet.volumes.launch import Job

N_FEATURES = 16  # of a position: the logarithm of the density, and inputs of the colour
N_INPUTS = 3 + N_FEATURES - 1  # of the head for colours: a direction and the features
MOST_LOGARITHM = np.float32(11.0)  # of a density
ANY = np.uint32(0xFFFFFFFF)


@device
def density_of(logarithm):
    return exp(at_most(logarithm, MOST_LOGARITHM))


@ParallelKernel
def densities_on_host(n, features, densities):
    for i in prange(n):
        densities[i] = density_of(features[i, 0])


def densities_on_device(n: UInt, pfeatures: Address, pdensities: Address):
    i = thread_number()
    if i < n:
        logarithm = float_matrix(pfeatures, n, N_FEATURES)[i, 0]
        float_vector(pdensities, n)[i] = density_of(logarithm)


@device
def join_sample(i, sources, features, rays, directions, total, densities, inputs):
    if i < total[0]:
        source, ray = sources[i], rays[i]
        densities[i] = density_of(features[source, 0])
        for d in range(3):
            inputs[i, d] = HALF * directions[ray, d] + HALF
        for k in range(1, N_FEATURES):
            inputs[i, 2 + k] = features[source, k]


@ParallelKernel
def join_on_host(n, sources, features, rays, directions, total, densities, inputs):
    for i in prange(n):
        join_sample(np.uint32(i), sources, features, rays, directions, total, densities, inputs)


def join_on_device(
    n: UInt, psources: Address, pfeatures: Address, prays: Address, pdirections: Address,
    ptotal: Address, pdensities: Address, pinputs: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        join_sample(
            i, uint32_vector(psources, n), float_matrix(pfeatures, ANY, N_FEATURES),
            uint32_vector(prays, n), float_matrix(pdirections, ANY, 3), uint32_vector(ptotal, 1),
            float_vector(pdensities, n), float_matrix(pinputs, n, N_INPUTS),
        )  # fmt: skip


@device
def split_sample(i, total, densities, dl_ddensities, dl_dinputs, dl_dfeatures):
    if i < total[0]:
        dl_dfeatures[i, 0] = dl_ddensities[i] * densities[i]
        for k in range(1, N_FEATURES):
            dl_dfeatures[i, k] = dl_dinputs[i, 2 + k]
    else:
        for k in range(N_FEATURES):
            dl_dfeatures[i, k] = ZERO


@ParallelKernel
def split_on_host(n, total, densities, dl_ddensities, dl_dinputs, dl_dfeatures):
    for i in prange(n):
        split_sample(np.uint32(i), total, densities, dl_ddensities, dl_dinputs, dl_dfeatures)


def split_on_device(
    n: UInt, ptotal: Address, pdensities: Address, pdl_ddensities: Address, pdl_dinputs: Address,
    pdl_dfeatures: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        split_sample(
            i, uint32_vector(ptotal, 1), float_vector(pdensities, n),
            float_vector(pdl_ddensities, n), float_matrix(pdl_dinputs, n, N_INPUTS),
            float_matrix(pdl_dfeatures, n, N_FEATURES),
        )  # fmt: skip


@device
def measure_ray(i, rays, gains, camera, factor, losses, dl_dcolours):
    colours, targets, backgrounds = rays
    opacity, total = targets[i, 3], ZERO
    for c in range(3):
        wanted = opacity * targets[i, c] + (ONE - opacity) * backgrounds[i, c]
        gain = exp(gains[camera, c])
        difference = gain * colours[i, c] - wanted
        total += difference * difference
        dl_dcolours[i, c] = factor * gain * difference
    losses[i] = total / np.float32(3.0)


@ParallelKernel
def measure_on_host(n, colours, targets, backgrounds, gains, cameras, factor, losses, dl_dcolours):
    for j in prange(n):
        i, rays = np.uint32(j), (colours, targets, backgrounds)
        measure_ray(i, rays, gains, cameras[i], factor, losses, dl_dcolours)


def measure_on_device(
    n: UInt, pcolours: Address, ptargets: Address, pbackgrounds: Address, pgains: Address,
    pcameras: Address, factor: Float, plosses: Address, pdl_dcolours: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        colours, targets = float_matrix(pcolours, n, 3), float_matrix(ptargets, n, 4)
        backgrounds = float_matrix(pbackgrounds, n, 3)
        measure_ray(
            i, (colours, targets, backgrounds), float_matrix(pgains, ANY, 3),
            uint32_vector(pcameras, n)[i], factor, float_vector(plosses, n),
            float_matrix(pdl_dcolours, n, 3),
        )  # fmt: skip


@device
def step_gain(j, n_rays, colours, dl_dcolours, cameras, rate, gains, moments):
    """Adam step of the logarithmic gain of channel j % 3 of camera j / 3."""
    camera, c, gradient, n = j // 3, j % 3, ZERO, ZERO
    for i in range(n_rays):
        if cameras[i] == camera:
            gradient += dl_dcolours[i, c] * colours[i, c]
            n += ONE
    if n > ZERO:
        gradient /= n
        first = np.float32(0.9) * moments[j, 0] + np.float32(0.1) * gradient
        second = np.float32(0.99) * moments[j, 1] + np.float32(0.01) * gradient * gradient
        moments[j, 0], moments[j, 1] = first, second
        gains[camera, c] -= rate * first / (math.sqrt(second) + np.float32(1e-8))


@ParallelKernel
def gains_on_host(n, n_rays, colours, dl_dcolours, cameras, rate, gains, moments):
    for j in prange(n):
        step_gain(np.uint32(j), n_rays, colours, dl_dcolours, cameras, rate, gains, moments)


def gains_on_device(
    n: UInt, n_rays: UInt, pcolours: Address, pdl_dcolours: Address, pcameras: Address,
    rate: Float, pgains: Address, pmoments: Address,
):  # fmt: skip
    j = thread_number()
    if j < n:
        step_gain(
            j, n_rays, float_matrix(pcolours, n_rays, 3), float_matrix(pdl_dcolours, n_rays, 3),
            uint32_vector(pcameras, n_rays), rate, float_matrix(pgains, n, 3),
            float_matrix(pmoments, n, 2),
        )  # fmt: skip


find_densities = Job(densities_on_host, densities_on_device)
join_heads = Job(join_on_host, join_on_device)
split_gradients = Job(split_on_host, split_on_device)
measure = Job(measure_on_host, measure_on_device)
step_gains = Job(gains_on_host, gains_on_device)
