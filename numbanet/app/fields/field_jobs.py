"""Device code between the heads of a radiance field, and its loss: a job per sample or ray."""

import math

import numpy as np

from numbanet.cuda.launch.types import Float, UInt
from numbanet.device import HALF, ONE, ZERO, at_most, device, exp
from numbanet.volumes.launch import Floats, Job, Rows, UInts

N_FEATURES = 16  # of a position: the logarithm of the density, and inputs of the colour
N_INPUTS = 3 + N_FEATURES - 1  # of the head for colours: a direction and the features
MOST_LOGARITHM = np.float32(11.0)  # of a density


@device
def density_of(logarithm):
    return exp(at_most(logarithm, MOST_LOGARITHM))


@Job
def find_densities(i, features: Rows(N_FEATURES), densities: Floats):
    densities[i] = density_of(features[i, 0])


@Job
def join_heads(
    i, sources: UInts, features: Rows(N_FEATURES), rays: UInts, directions: Rows(3), total: UInts,
    densities: Floats, inputs: Rows(N_INPUTS),
):  # fmt: skip
    if i < total[0]:
        source, ray = sources[i], rays[i]
        densities[i] = density_of(features[source, 0])
        for d in range(3):
            inputs[i, d] = HALF * directions[ray, d] + HALF
        for k in range(1, N_FEATURES):
            inputs[i, 2 + k] = features[source, k]


@Job
def split_gradients(
    i, total: UInts, densities: Floats, dl_ddensities: Floats, dl_dinputs: Rows(N_INPUTS),
    dl_dfeatures: Rows(N_FEATURES),
):  # fmt: skip
    if i < total[0]:
        dl_dfeatures[i, 0] = dl_ddensities[i] * densities[i]
        for k in range(1, N_FEATURES):
            dl_dfeatures[i, k] = dl_dinputs[i, 2 + k]
    else:
        for k in range(N_FEATURES):
            dl_dfeatures[i, k] = ZERO


@Job
def measure(
    i, colours: Rows(3), targets: Rows(4), backgrounds: Rows(3), gains: Rows(3), cameras: UInts,
    factor: Float, losses: Floats, dl_dcolours: Rows(3),
):  # fmt: skip
    camera, opacity, total = cameras[i], targets[i, 3], ZERO
    for c in range(3):
        wanted = opacity * targets[i, c] + (ONE - opacity) * backgrounds[i, c]
        gain = exp(gains[camera, c])
        difference = gain * colours[i, c] - wanted
        total += difference * difference
        dl_dcolours[i, c] = factor * gain * difference
    losses[i] = total / np.float32(3.0)


@Job
def step_gains(
    j, n_rays: UInt, colours: Rows(3), dl_dcolours: Rows(3), cameras: UInts, rate: Float,
    gains: Rows(3), moments: Rows(2),
):  # fmt: skip
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
