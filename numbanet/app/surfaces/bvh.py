"""Closest triangle of a mesh, through a bounding volume hierarchy.

Triangles are sorted by the Morton code of their centres (Morton 1966) and fill the leaves of a
complete binary tree from left to right: node k has the children 2 k and 2 k + 1, the root is 1. So
a tree is one array of boxes, made level by level. The sign is that of the closest point's
pseudonormal (Bærentzen and Aanæs 2005): of the face, the sum of both faces at an edge, or at a
corner the sum over its faces, weighted by their angles.
"""

import math
from dataclasses import dataclass

import numpy as np

from numbanet.device import ONE, ZERO, device, local_array, uint32_view

LEAF = 4  # triangles of a leaf
DEEPEST = 32  # levels of a tree
FAR = np.float32(1e30)
SHORTEST = np.float32(1e-30)  # square of a side
# Squares of a triangle's height over that of its longer side at a:
THIN = np.float32(1e-6)  # signs of products may be wrong
THINNEST = np.float32(1e-10)  # the normal is lost in rounding
MORTON_BITS = 10  # of each axis
N_FEATURES = 7  # of a triangle that may be closest: the face, edges ab, bc, ca, corners a, b, c


@dataclass(frozen=True)
class Bvh:
    """Bounding volume hierarchy of triangles.

    Args:
        boxes: lowest and highest corner of each node, float32 [2 * n_leaves, 6]; row 0 is unused.
        corners: of the triangles in the leaves, float32 [LEAF * n_leaves, 9]; a leaf that is not
            full repeats its last one.
        normals: pseudonormals of each one's features, float32 [LEAF * n_leaves, 21].
        areas: sums up to each triangle, over the whole area, float32 [LEAF * n_leaves].
    """

    boxes: np.ndarray
    corners: np.ndarray
    normals: np.ndarray
    areas: np.ndarray


def build(triangles: np.ndarray) -> Bvh:
    """Hierarchy of n >= 1 triangles [n, 3, 3] of positive area."""
    triangles = triangles.astype(np.float64)  # slivers have no normal in float32
    order = np.argsort(morton_codes(triangles.mean(axis=1)), kind="stable")
    n = len(triangles)
    n_leaves = 1 << max(math.ceil(math.log2(n / LEAF)), 0)
    bounds = np.arange(n_leaves + 1) * n // n_leaves
    slots = np.arange(LEAF) + bounds[:-1, None]
    is_own = slots < bounds[1:, None]
    chosen = order[np.minimum(slots, bounds[1:, None] - 1)].reshape(-1)
    corners = triangles[chosen].astype(np.float32)
    leaves = corners.reshape(n_leaves, 3 * LEAF, 3)
    boxes = np.zeros((2 * n_leaves, 6), np.float32)
    boxes[n_leaves:] = np.concatenate([leaves.min(axis=1), leaves.max(axis=1)], axis=1)
    level = n_leaves
    while level > 1:
        left, right = boxes[level : 2 * level : 2], boxes[level + 1 : 2 * level : 2]
        level //= 2
        boxes[level : 2 * level, :3] = np.minimum(left[:, :3], right[:, :3])
        boxes[level : 2 * level, 3:] = np.maximum(left[:, 3:], right[:, 3:])
    sums = np.cumsum(areas_of(triangles)[chosen] * is_own.reshape(-1))
    normals = pseudonormals(triangles)[chosen].reshape(-1, 3 * N_FEATURES)
    return Bvh(
        boxes,
        corners.reshape(-1, 9),
        normals.astype(np.float32),
        (sums / sums[-1]).astype(np.float32),
    )


def morton_codes(points: np.ndarray) -> np.ndarray:
    """Morton codes of points [n, 3]: integers that are close for close points."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = (points - low) / np.maximum(high - low, 1e-12) * (2**MORTON_BITS - 1)
    cells, codes = cells.astype(np.int64), np.zeros(len(points), np.int64)
    for bit in range(MORTON_BITS):
        for d in range(3):
            codes |= ((cells[:, d] >> bit) & 1) << (3 * bit + d)
    return codes


def areas_of(triangles: np.ndarray) -> np.ndarray:
    a, b, c = triangles.transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def corner_numbers(triangles: np.ndarray) -> np.ndarray:
    """Numbers of corners, [n, 3]: corners at the same position share one."""
    places = np.ascontiguousarray(triangles.reshape(-1, 3)) + 0.0  # turns -0.0 into 0.0
    rows = places.view(np.dtype((np.void, places.dtype.itemsize * 3))).reshape(-1)
    return np.unique(rows, return_inverse=True)[1].reshape(-1, 3)


def edge_ends(numbers: np.ndarray) -> np.ndarray:
    """Both corners of each edge ab, bc, ca, [n, 3, 2], in the order of the triangle."""
    return np.stack([numbers, np.roll(numbers, -1, axis=1)], axis=2)


def n_open_edges(triangles: np.ndarray) -> int:
    """Number of edges that are not shared by two triangles in opposite directions."""
    ends = edge_ends(corner_numbers(triangles)).reshape(-1, 2)
    forward = ends[:, 0] < ends[:, 1]
    edges, which = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    one = np.bincount(which[forward], minlength=len(edges))
    other = np.bincount(which[~forward], minlength=len(edges))
    return int(np.count_nonzero(one != other))


def pseudonormals(triangles: np.ndarray) -> np.ndarray:
    """Pseudonormals of each triangle's features, [n, N_FEATURES, 3]; not normalised."""
    numbers = corner_numbers(triangles)
    sides = np.roll(triangles, -1, axis=1) - triangles  # ab, bc, ca
    faces = np.cross(sides[:, 0], -sides[:, 2])
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    edges, which = np.unique(
        np.sort(edge_ends(numbers).reshape(-1, 2), axis=1), axis=0, return_inverse=True
    )
    which = which.reshape(-1, 3)
    at_edges, at_corners = np.zeros((len(edges), 3)), np.zeros((numbers.max() + 1, 3))
    lengths = np.linalg.norm(sides, axis=2)
    for k in range(3):
        np.add.at(at_edges, which[:, k], faces)
        cosines = -np.einsum("nd,nd->n", sides[:, k], sides[:, k - 1])
        cosines /= lengths[:, k] * lengths[:, k - 1]
        np.add.at(at_corners, numbers[:, k], faces * np.arccos(np.clip(cosines, -1, 1))[:, None])
    return np.concatenate([faces[:, None], at_edges[which], at_corners[numbers]], axis=1)


@device
def box_distance(boxes, node, x, y, z):  # squared
    dx = max(boxes[node, 0] - x, x - boxes[node, 3], ZERO)
    dy = max(boxes[node, 1] - y, y - boxes[node, 4], ZERO)
    dz = max(boxes[node, 2] - z, z - boxes[node, 5], ZERO)
    return dx * dx + dy * dy + dz * dz


@device
def dot(ax, ay, az, bx, by, bz):
    return ax * bx + ay * by + az * bz


@device
def cross(ax, ay, az, bx, by, bz):
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@device
def along(x, y, z, px, py, pz):
    """Position from 0 to 1 on the side x, y, z that is closest to p, and the squared distance."""
    t = dot(x, y, z, px, py, pz) / max(dot(x, y, z, x, y, z), SHORTEST)
    t = min(max(t, ZERO), ONE)
    dx, dy, dz = px - t * x, py - t * y, pz - t * z
    return t, dot(dx, dy, dz, dx, dy, dz)


@device
def closest_place(ab, ac, px, py, pz):
    """Closest point of a triangle 0, ab, ac [3] to a point: v, w of v ab + w ac, and the feature.

    Corners come first (Ericson 2005, "Real-time collision detection", 5.1.5), then the foot of the
    perpendicular and the sides beyond which the point lies. Products with the normal tell these,
    which lose few digits where triangles are thin; of very thin ones all sides are asked.
    """
    d1, d2 = dot(ab[0], ab[1], ab[2], px, py, pz), dot(ac[0], ac[1], ac[2], px, py, pz)
    if d1 <= ZERO and d2 <= ZERO:
        return ZERO, ZERO, 4
    qx, qy, qz = px - ab[0], py - ab[1], pz - ab[2]
    d3, d4 = dot(ab[0], ab[1], ab[2], qx, qy, qz), dot(ac[0], ac[1], ac[2], qx, qy, qz)
    if d3 >= ZERO and d4 <= d3:
        return ONE, ZERO, 5
    rx, ry, rz = px - ac[0], py - ac[1], pz - ac[2]
    d5, d6 = dot(ab[0], ab[1], ab[2], rx, ry, rz), dot(ac[0], ac[1], ac[2], rx, ry, rz)
    if d6 >= ZERO and d5 <= d6:
        return ZERO, ONE, 6
    nx, ny, nz = cross(ab[0], ab[1], ab[2], ac[0], ac[1], ac[2])
    square = dot(nx, ny, nz, nx, ny, nz)
    vx, vy, vz = cross(px, py, pz, ac[0], ac[1], ac[2])
    wx, wy, wz = cross(ab[0], ab[1], ab[2], px, py, pz)
    v, w = dot(nx, ny, nz, vx, vy, vz), dot(nx, ny, nz, wx, wy, wz)
    u, size = square - v - w, dot(ab[0], ab[1], ab[2], ab[0], ab[1], ab[2])
    size = max(size, dot(ac[0], ac[1], ac[2], ac[0], ac[1], ac[2]))
    size *= size
    if min(u, v, w) >= ZERO and square > THINNEST * size:
        return v / square, w / square, 0
    is_thin, best = square <= THIN * size, FAR
    found_v, found_w, t, feature, start, stop = ZERO, ZERO, ZERO, 1, 4, 5
    if w < ZERO or is_thin:
        t, best = along(ab[0], ab[1], ab[2], px, py, pz)
        found_v = t
    if v < ZERO or is_thin:
        t_ac, other = along(ac[0], ac[1], ac[2], px, py, pz)
        if other < best:
            best, t, feature, start, stop = other, t_ac, 3, 4, 6
            found_v, found_w = ZERO, t
    if u < ZERO or is_thin:
        bx, by, bz = ac[0] - ab[0], ac[1] - ab[1], ac[2] - ab[2]
        t_bc, other = along(bx, by, bz, qx, qy, qz)
        if other < best:
            t, feature, start, stop = t_bc, 2, 5, 6
            found_v, found_w = ONE - t, t
    if t <= ZERO:
        feature = start
    elif t >= ONE:
        feature = stop
    return found_v, found_w, feature


@device
def mesh_distance(x, y, z, tables):
    """Signed distance to a mesh, negative inside; the tables are those of Bvh, and n_leaves."""
    boxes, corners, normals, _, n_leaves = tables
    stack = uint32_view(local_array(DEEPEST))
    ab, ac = local_array(3), local_array(3)
    best, side, n_waiting = FAR, ONE, 0
    node = np.uint32(1)
    while True:
        while node < n_leaves:
            left = 2 * node
            near, far = box_distance(boxes, left, x, y, z), box_distance(boxes, left + 1, x, y, z)
            step = np.uint32(near > far)  # 1 where the right one is nearer
            if max(near, far) < best:
                stack[n_waiting] = left + (1 - step)
                n_waiting += 1
            node = left + step
            if min(near, far) >= best:
                break
        if node >= n_leaves:
            first = LEAF * (node - n_leaves)
            for k in range(LEAF):
                row = first + np.uint32(k)
                for d in range(3):
                    ab[d] = corners[row, 3 + d] - corners[row, d]
                    ac[d] = corners[row, 6 + d] - corners[row, d]
                px, py, pz = x - corners[row, 0], y - corners[row, 1], z - corners[row, 2]
                v, w, feature = closest_place(ab, ac, px, py, pz)
                px -= v * ab[0] + w * ac[0]
                py -= v * ab[1] + w * ac[1]
                pz -= v * ab[2] + w * ac[2]
                square = dot(px, py, pz, px, py, pz)
                if square < best:
                    best, n = square, 3 * feature
                    side = dot(
                        px, py, pz, normals[row, n], normals[row, n + 1], normals[row, n + 2]
                    )
        found = False
        while n_waiting > 0 and not found:
            n_waiting -= 1
            node = stack[n_waiting]
            found = box_distance(boxes, node, x, y, z) < best
        if not found:
            break
    distance = math.sqrt(best)
    return -distance if side < ZERO else distance


@device
def mesh_point(u, point, tables):
    """Uniformly distributed point of the surface from three uniform numbers."""
    _, corners, _, areas, n_leaves = tables
    low, high = np.uint32(0), LEAF * n_leaves - 1
    while low < high:  # the first triangle whose sum of areas lies above
        middle = (low + high) >> 1
        if areas[middle] > u[0]:
            high = middle
        else:
            low = middle + 1
    root = math.sqrt(u[1])
    v, w = root * (ONE - u[2]), root * u[2]
    for d in range(3):
        a = corners[low, d]
        point[d] = a + v * (corners[low, 3 + d] - a) + w * (corners[low, 6 + d] - a)
