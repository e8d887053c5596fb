"""Signed distances of simple shapes, and colours, for device code.

Formulas of distances: Hart 1996, "Sphere tracing".
"""

import math

import numpy as np

from numbanet.device import ONE, ZERO, cos, device, floor_to_int, sin

TURN = np.float32(2 * np.pi)
GOLDEN_ANGLE = np.float32(2.39996323)
SCALE_24 = np.float32(2.0**-24)


@device
def length2(x, y):
    return math.sqrt(x * x + y * y)


@device
def length3(x, y, z):
    return math.sqrt(x * x + y * y + z * z)


@device
def box(x, y, z, a, b, c):  # of half sizes a, b, c
    x, y, z = abs(x) - a, abs(y) - b, abs(z) - c
    outside = length3(max(x, ZERO), max(y, ZERO), max(z, ZERO))
    return outside + min(max(x, y, z), ZERO)


@device
def torus(x, y, z, large, small):  # around the z axis
    return length2(length2(x, y) - large, z) - small


@device
def segment(point, a, b):  # less its radius, a rod with round ends
    px, py, pz = point[0] - a[0], point[1] - a[1], point[2] - a[2]
    dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    s = (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz)
    s = min(max(s, ZERO), ONE)
    return length3(px - s * dx, py - s * dy, pz - s * dz)


@device
def turned(x, y, angle):
    c, s = cos(angle), sin(angle)
    return c * x - s * y, s * x + c * y


@device
def noise(k):  # of a whole number: in [0, 1)
    h = np.uint32(k) * 0x9E3779B1
    h = (h ^ (h >> 15)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return np.float32((h ^ (h >> 16)) >> 8) * SCALE_24


@device
def palette(t, rgb):
    """A saturated colour for each t, with period 1."""
    for c in range(3):
        rgb[c] = np.float32(0.55) + np.float32(0.4) * cos(
            TURN * (t + np.float32(c) / np.float32(3))
        )


@device
def checker(x, y, z, n):  # whether a point lies in a black cell of size 1 / n
    total = floor_to_int(x * n) + floor_to_int(y * n) + floor_to_int(z * n)
    return total & 1 == 0


@device
def dim(rgb, factor):
    for c in range(3):
        rgb[c] *= factor
