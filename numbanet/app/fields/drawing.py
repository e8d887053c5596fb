"""Pictures of the eight scenes, traced ray by ray along their distances (Hart 1996).

Light comes from one sun and from everywhere; a glossy surface mirrors a sky made of formulas. Fog
adds up what it emits over short steps. Several rays a pixel smooth the edges.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from numbanet.app.fields.scenes import Scene
from numbanet.app.fields.shapes import checker
from numbanet.cuda.launch.types import UInt
from numbanet.device import HALF, ONE, ZERO, device, exp, local_array, nothing
from numbanet.target import AbstractTarget
from numbanet.volumes.cameras import Camera, camera_ray
from numbanet.volumes.launch import Floats, Job, UInts, integers

BOUND = np.float32(1.05)  # no scene reaches further
MOST_STEPS = 160
CLOSE = np.float32(5e-4)  # to the surface
TAP = np.float32(1e-3)  # between the points of which a normal is made
FOG_STEP = np.float32(0.02)
SUN = tuple(map(np.float32, (0.48, 0.36, 0.8)))
SIDE = 2  # rays along each axis of a pixel
BYTE = np.float32(255.0)


@device
def sky(x, y, z, rgb):  # which glossy surfaces mirror
    up = HALF + HALF * z
    rgb[0] = np.float32(0.25) + np.float32(0.45) * up
    rgb[1] = np.float32(0.3) + np.float32(0.5) * up
    rgb[2] = np.float32(0.4) + np.float32(0.55) * up
    if checker(x, y, z, np.float32(2.5)):
        for c in range(3):
            rgb[c] *= np.float32(0.55)
    glow = max(x * SUN[0] + y * SUN[1] + z * SUN[2], ZERO)
    glow *= glow
    glow *= glow
    for c in range(3):
        rgb[c] += glow * glow * glow


@cache
def ray_of(scene: Scene):
    """Device function that traces a ray and writes [4]: colour times opacity, and opacity."""
    distance, albedo, fog, gloss = scene.distance, scene.albedo, scene.fog, np.float32(scene.gloss)
    is_glossy, has_fog = scene.gloss > 0, scene.fog is not nothing

    @device
    def shade(point, direction, rgb, mirrored):
        (x, y, z), (dx, dy, dz) = point, direction
        nx = distance(x + TAP, y, z) - distance(x - TAP, y, z)
        ny = distance(x, y + TAP, z) - distance(x, y - TAP, z)
        nz = distance(x, y, z + TAP) - distance(x, y, z - TAP)
        scale = ONE / max(math.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-9))
        nx, ny, nz = nx * scale, ny * scale, nz * scale
        albedo(x, y, z, rgb)
        lit = max(nx * SUN[0] + ny * SUN[1] + nz * SUN[2], ZERO)
        light = np.float32(0.4) + np.float32(0.1) * nz + np.float32(0.55) * lit
        for c in range(3):
            rgb[c] *= light
        if is_glossy:
            facing = min(-(dx * nx + dy * ny + dz * nz), ONE)
            twice = np.float32(2.0) * facing
            sky(dx + twice * nx, dy + twice * ny, dz + twice * nz, mirrored)
            share = gloss * (np.float32(0.35) + np.float32(0.65) * (ONE - facing) * (ONE - facing))
            for c in range(3):
                rgb[c] += share * (mirrored[c] - rgb[c])

    @device
    def trace(ox, oy, oz, dx, dy, dz, seen):
        rgb, mirrored = local_array(3), local_array(3)
        for c in range(4):
            seen[c] = ZERO
        middle = -(ox * dx + oy * dy + oz * dz)
        inside = BOUND * BOUND - (ox * ox + oy * oy + oz * oz - middle * middle)
        if inside > ZERO:
            half = math.sqrt(inside)
            t, stop, light = max(middle - half, ZERO), middle + half, ONE
            found, n = FOG_STEP, 0
            first = t
            while t < stop and n < MOST_STEPS:
                found = distance(ox + t * dx, oy + t * dy, oz + t * dz)
                if found < CLOSE:
                    n = MOST_STEPS
                else:
                    t += found
                n += 1
            if has_fog:
                s = first + HALF * FOG_STEP
                while s < min(t, stop):
                    density = fog(ox + s * dx, oy + s * dy, oz + s * dz, rgb)
                    kept = exp(-density * FOG_STEP)
                    for c in range(3):
                        seen[c] += light * (ONE - kept) * rgb[c]
                    light *= kept
                    s += FOG_STEP
            if found < CLOSE and t < stop:
                shade((ox + t * dx, oy + t * dy, oz + t * dz), (dx, dy, dz), rgb, mirrored)
                for c in range(3):
                    seen[c] += light * min(max(rgb[c], ZERO), ONE)
                light = ZERO
            seen[3] = ONE - light

    return trace


@device
def as_byte(value):
    return np.uint32(min(max(value, ZERO), ONE) * BYTE + HALF)


@cache
def drawing_job(scene: Scene) -> Job:
    trace = ray_of(scene)

    @Job
    def draw_pixel(i, camera: Floats, first: UInt, width: UInt, pixels: UInts):
        origin, direction, seen = local_array(3), local_array(3), local_array(4)
        total = local_array(4)
        for c in range(4):
            total[c] = ZERO
        for s in range(SIDE * SIDE):
            x = np.float32(i % width) + (np.float32(s % SIDE) + HALF) / np.float32(SIDE)
            y = np.float32(first + i // width) + (np.float32(s // SIDE) + HALF) / np.float32(SIDE)
            camera_ray(camera, x, y, origin, direction)
            trace(origin[0], origin[1], origin[2], direction[0], direction[1], direction[2], seen)
            for c in range(4):
                total[c] += seen[c] / np.float32(SIDE * SIDE)
        word, opacity = as_byte(total[3]) << 24, max(total[3], np.float32(1e-6))
        for c in range(3):
            word |= as_byte(total[c] / opacity) << np.uint32(8 * c)
        pixels[i] = word

    return draw_pixel


def draw(scene: Scene, camera: Camera, target: AbstractTarget) -> Any:
    """Render a picture row by row, uint32 [height * width]; on the target.

    Red, green, blue and opacity are the bytes from the lowest one up; colours are not multiplied
    by the opacity.
    """
    n = camera.width * camera.height
    pixels = integers(target, n)
    numbers = target.from_host(camera.numbers())
    drawing_job(scene)(target, n, numbers, 0, camera.width, pixels)
    return pixels
