"""Eight scenes made of formulas, each within a distance of 1 from the origin.

A scene is a signed distance `distance(x, y, z)`, which may be too small but never too large, and
`albedo(x, y, z, rgb)`, the colour of the surface there. `gloss` is how much of its surroundings it
mirrors. A scene with fog has `fog(x, y, z, rgb)`, the density there, which writes the colour too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from numbanet.app.fields.shapes import (
    GOLDEN_ANGLE,
    TURN,
    box,
    checker,
    dim,
    length3,
    noise,
    palette,
    segment,
    torus,
    turned,
)
from numbanet.device import HALF, ONE, ZERO, cos, device, exp, floor_to_int, nothing, sin

FAR = np.float32(1e3)


@dataclass(frozen=True)
class Scene:
    """Scene made of formulas; see the module."""

    name: str
    distance: Callable
    albedo: Callable
    gloss: float = 0.0
    fog: Callable = nothing


N_SPHERES = 11


@device
def sphere_at(k, x, y, z):
    t = (np.float32(k) + HALF) / np.float32(N_SPHERES)
    angle, radius = GOLDEN_ANGLE * np.float32(k), np.float32(0.68) * math.sqrt(t)
    height = np.float32(0.55) * cos(np.float32(5.0) * np.float32(k))
    size = np.float32(0.14) + np.float32(0.12) * noise(k)
    return length3(x - radius * cos(angle), y - radius * sin(angle), z - height) - size


@device
def spheres(x, y, z):
    least = FAR
    for k in range(N_SPHERES):
        least = min(least, sphere_at(k, x, y, z))
    return least


@device
def sphere_colour(x, y, z, rgb):
    least, which = FAR, 0
    for k in range(N_SPHERES):
        found = sphere_at(k, x, y, z)
        if found < least:
            least, which = found, k
    palette(np.float32(which) * np.float32(0.381966), rgb)
    if sin(np.float32(36.0) * z + np.float32(6.0) * x) < np.float32(-0.2):
        dim(rgb, np.float32(0.45))


@device
def tower(k, x, y, z):
    angle = np.float32(k) * (TURN / np.float32(6))
    x, y = x - np.float32(0.45) * cos(angle), y - np.float32(0.45) * sin(angle)
    x, y = turned(x, y, np.float32(1.1) * np.float32(k))
    height = np.float32(0.16) + np.float32(0.4) * noise(k + 5)
    return box(x, y, z + np.float32(0.5) - height, np.float32(0.13), np.float32(0.1), height)


@device
def boxes(x, y, z):
    u, v = turned(x, y, np.float32(0.4))
    least = box(u, v, z + np.float32(0.1), np.float32(0.17), np.float32(0.17), np.float32(0.4))
    floor = box(x, y, z + np.float32(0.55), np.float32(0.55), np.float32(0.55), np.float32(0.05))
    least = min(least, floor)
    for k in range(6):
        least = min(least, tower(k, x, y, z))
    return least


@device
def box_colour(x, y, z, rgb):
    palette(np.float32(0.25) * z + np.float32(0.3) * x - np.float32(0.2) * y, rgb)
    if checker(x, y, z + np.float32(0.01), np.float32(8.0)):
        dim(rgb, np.float32(0.4))


@device
def rings(x, y, z):
    one = torus(x + np.float32(0.28), y, z, np.float32(0.45), np.float32(0.15))
    x, y, z = x - np.float32(0.28), z, -y
    return min(one, torus(x, y, z, np.float32(0.45), np.float32(0.13)))


@device
def ring_colour(x, y, z, rgb):
    one = torus(x + np.float32(0.28), y, z, np.float32(0.45), np.float32(0.15))
    other = torus(x - np.float32(0.28), z, -y, np.float32(0.45), np.float32(0.13))
    palette(np.float32(0.1) if one < other else np.float32(0.6), rgb)
    wave = sin(np.float32(22.0) * x) * sin(np.float32(22.0) * y) * sin(np.float32(22.0) * z)
    dim(rgb, np.float32(0.72) + np.float32(0.28) * wave)


WIRE = np.float32(0.014)


@device
def wires(x, y, z):
    point, s = (abs(x), abs(y), abs(z)), np.float32(0.52)  # a cube's edges, in one octant
    least = segment(point, (s, s, ZERO), (s, s, s))
    least = min(least, segment(point, (s, ZERO, s), (s, s, s)))
    least = min(least, segment(point, (ZERO, s, s), (s, s, s)))
    least = min(least, segment(point, (ZERO, ZERO, ZERO), (s, s, s)))  # diagonals
    least = min(least, torus(x, y, z, np.float32(0.72), ZERO))
    least = min(least, torus(y, z, x, np.float32(0.8), ZERO))
    return min(least, torus(z, x, y, np.float32(0.88), ZERO)) - WIRE


@device
def wire_colour(x, y, z, rgb):
    palette(length3(x, y, z) * np.float32(0.8) + np.float32(0.15) * x, rgb)


@device
def glossy(x, y, z):
    ball = length3(x + np.float32(0.3), y, z - np.float32(0.1)) - np.float32(0.42)
    ring = torus(y, z - np.float32(0.05), x - np.float32(0.45), np.float32(0.3), np.float32(0.1))
    plate = box(x, y, z + np.float32(0.42), np.float32(0.78), np.float32(0.5), np.float32(0.04))
    return min(ball, ring, plate)


@device
def glossy_colour(x, y, z, rgb):
    palette(np.float32(0.45) if x < np.float32(0.1) else np.float32(0.02), rgb)
    if z < np.float32(-0.36):
        rgb[0] = rgb[1] = rgb[2] = np.float32(0.75)
        if checker(x, y, ZERO, np.float32(6.0)):
            dim(rgb, np.float32(0.25))


# Strokes of capital letters, each from one point of a grid of 3 x 5 to another: 5 x + y.
STROKES = {
    "N": ((0, 4), (4, 10), (10, 14)),
    "U": ((4, 1), (1, 5), (5, 11), (11, 14)),
    "M": ((0, 4), (4, 7), (7, 14), (14, 10)),
    "B": ((0, 4), (4, 9), (9, 13), (13, 7), (2, 7), (7, 11), (11, 5), (5, 0)),
    "A": ((0, 9), (9, 10), (1, 11)),
}
WORD = "NUMBA"
LINES = np.array(
    [
        (1.0 + 3 * k + (a // 5), a % 5, 1.0 + 3 * k + (b // 5), b % 5)
        for k, letter in enumerate(WORD)
        for a, b in STROKES[letter]
    ],
    np.float32,
)
LINES = (LINES - np.float32([8, 2, 8, 2])) * np.float32(0.098)
STROKE_LINES = tuple(tuple(map(np.float32, line)) for line in LINES)


@device
def letters(x, z):
    least = FAR
    for ax, az, bx, bz in STROKE_LINES:
        least = min(least, segment((x, ZERO, z), (ax, ZERO, az), (bx, ZERO, bz)))
    return least - np.float32(0.028)


@device
def text(x, y, z):
    slab = box(x, y, z, np.float32(0.84), np.float32(0.09), np.float32(0.3))
    x = x if y < ZERO else -x  # to be read from both sides
    raised = max(letters(x, z), abs(y) - np.float32(0.14))
    return min(slab, raised)


@device
def text_colour(x, y, z, rgb):
    if abs(y) > np.float32(0.095):
        palette(x * HALF, rgb)
    else:
        shade = np.float32(0.88) if checker(x, y, z, np.float32(12.0)) else np.float32(0.8)
        rgb[0] = rgb[1] = rgb[2] = shade


@device
def core(x, y, z):
    return length3(x - np.float32(0.1), y, z) - np.float32(0.2)


@device
def core_colour(x, y, z, rgb):
    palette(np.float32(0.1), rgb)
    if checker(x, y, z, np.float32(9.0)):
        dim(rgb, np.float32(0.3))


@device
def clouds(x, y, z, rgb):
    total = ZERO
    rgb[0] = rgb[1] = rgb[2] = ZERO
    for k in range(4):
        angle = np.float32(k) * np.float32(1.7)
        u, v = x - np.float32(0.42) * cos(angle), y - np.float32(0.42) * sin(angle)
        w = z - np.float32(0.3) * sin(angle * np.float32(2.3))
        part = np.float32(7.0) * exp(np.float32(-22.0) * (u * u + v * v + w * w))
        total += part
        for c in range(3):
            wave = cos(TURN * (np.float32(0.27) * np.float32(k) + np.float32(c) / np.float32(3)))
            rgb[c] += part * (np.float32(0.6) + np.float32(0.4) * wave)
    dim(rgb, ONE / max(total, np.float32(1e-6)))
    return total if total > np.float32(0.02) else ZERO


CELL = np.float32(0.2)


@device
def many(x, y, z):
    i, j, k = floor_to_int(x / CELL), floor_to_int(y / CELL), floor_to_int(z / CELL)
    u, v = x - (np.float32(i) + HALF) * CELL, y - (np.float32(j) + HALF) * CELL
    w = z - (np.float32(k) + HALF) * CELL
    border = HALF * CELL - max(abs(u), abs(v), abs(w))  # of the next cell
    number = np.uint32(i + 16) + 32 * np.uint32(j + 16) + 1024 * np.uint32(k + 16)
    centre = length3(x - u, y - v, z - w)
    if centre > np.float32(0.8) or noise(number) < np.float32(0.35):
        return border + np.float32(0.02)
    size = np.float32(0.03) + np.float32(0.05) * noise(number + 7)
    ball = length3(u, v, w) - size
    cube = box(u, v, w, size * np.float32(0.8), size * np.float32(0.8), size * np.float32(0.8))
    return min(ball if noise(number + 3) < HALF else cube, border + np.float32(0.02))


@device
def many_colour(x, y, z, rgb):
    i, j, k = floor_to_int(x / CELL), floor_to_int(y / CELL), floor_to_int(z / CELL)
    number = np.uint32(i + 16) + 32 * np.uint32(j + 16) + 1024 * np.uint32(k + 16)
    palette(noise(number + 11), rgb)


SCENES = {
    scene.name: scene
    for scene in (
        Scene("spheres", spheres, sphere_colour),
        Scene("boxes", boxes, box_colour),
        Scene("torus", rings, ring_colour),
        Scene("thin", wires, wire_colour),
        Scene("glossy", glossy, glossy_colour, gloss=0.6),
        Scene("text", text, text_colour),
        Scene("fog", core, core_colour, fog=clouds),
        Scene("many", many, many_colour),
    )
}
