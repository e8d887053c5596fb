"""Shapes whose signed distance is a formula, in the unit cube; for device code.

Points on them: a random point moves by its distance along the gradient, which leads to the closest
point of the surface. Distances: Hart 1996, "Sphere tracing".
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.app.fields.shapes import box, length3, torus
from numbanet.device import HALF, ONE, ZERO, device

TAP = np.float32(1e-3)  # between the points of which a gradient is made


@device
def sphere(x, y, z):
    return length3(x - HALF, y - HALF, z - HALF) - np.float32(0.35)


@device
def ring(x, y, z):
    return torus(x - HALF, y - HALF, z - HALF, np.float32(0.28), np.float32(0.1))


@device
def rounded_box(x, y, z):
    sides = np.float32(0.27), np.float32(0.2), np.float32(0.14)
    return box(x - HALF, y - HALF, z - HALF, *sides) - np.float32(0.05)


@device
def capsule(x, y, z):  # around the diagonal from 0.3 to 0.7
    along = (x + y + z) / np.float32(3) - np.float32(0.3)
    nearest = min(max(along / np.float32(0.4), ZERO), ONE) * np.float32(0.4) + np.float32(0.3)
    return length3(x - nearest, y - nearest, z - nearest) - np.float32(0.15)


@device
def links(x, y, z):
    """Chain of three rings, none of which touches another."""
    large, small, apart = np.float32(0.15), np.float32(0.045), np.float32(0.2)
    x, y, z = x - HALF, y - HALF, z - HALF
    left, right = torus(x + apart, z, y, large, small), torus(x - apart, z, y, large, small)
    return min(torus(x, y, z, large, small), left, right)


SHAPES = {
    "sphere": sphere,
    "torus": ring,
    "box": rounded_box,
    "capsule": capsule,
    "links": links,
}


def formula(shape: Any) -> tuple[Any, Any]:
    """Device functions of a shape: its distance, and a point of its surface; for distances.py."""

    @device
    def distance(x, y, z, tables):
        return shape(x, y, z)

    @device
    def surface_point(u, point, tables):
        x, y, z = u[0], u[1], u[2]
        for _ in range(2):  # the second step corrects the first near creases
            d = shape(x, y, z)
            gx = shape(x + TAP, y, z) - shape(x - TAP, y, z)
            gy = shape(x, y + TAP, z) - shape(x, y - TAP, z)
            gz = shape(x, y, z + TAP) - shape(x, y, z - TAP)
            d /= max(math.sqrt(gx * gx + gy * gy + gz * gz), TAP)
            x, y, z = x - d * gx, y - d * gy, z - d * gz
        point[0], point[1], point[2] = x, y, z

    return distance, surface_point


@dataclass(frozen=True)
class Formula:
    """Shape with a formula for its signed distance.

    Args:
        name: one of SHAPES.
    """

    name: str

    note = ""
    scale = 1.0  # of the cube's side, in units of the shape
    origin = (0.0, 0.0, 0.0)

    @property
    def digest(self) -> str:
        """Digest of the shape."""
        return f"formula {self.name}"

    @property
    def functions(self) -> tuple[Any, Any]:
        return formula(SHAPES[self.name])

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """Empty tables, as formulas read none."""
        return tuple(np.zeros(shape, np.float32) for shape in ((2, 6), (4, 9), (4, 21), (4,)))
