"""Meshes: read from files, checked, moved into the unit cube, and written."""

import codecs
import io
import os
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.app.files import write_file
from numbanet.app.surfaces.bvh import (
    Bvh,
    areas_of,
    build,
    mesh_distance,
    mesh_point,
    n_open_edges,
)
from numbanet.regular_file import read_regular

FORMATS = ("obj", "ply", "stl")
MOST_BYTES = 1 << 30
MOST_TRIANGLES = 1 << 23
SIZE = 0.8  # of the longest side in the cube
FARTHEST = 1e30  # coordinates
STL_HEADER, STL_TRIANGLE = 80, 50  # bytes
STL_START = 1024  # bytes, in which a file of text says so; blank lines may come first
LEAST_AREA = 1e-14  # of a triangle in the cube; smaller ones have no direction


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in the unit cube.

    Args:
        name: of the file.
        triangles: corners, float32 [n, 3, 3].
        scale: of the cube's side, in the file's units.
        origin: of the cube, in the file's units.
        note: assumptions about the data, for the user.
    """

    name: str
    triangles: np.ndarray
    scale: float
    origin: tuple[float, float, float]
    note: str = ""

    functions = mesh_distance, mesh_point

    @cached_property
    def bvh(self) -> Bvh:
        return build(self.triangles)

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """Arrays that the functions read; see bvh.Bvh."""
        return self.bvh.boxes, self.bvh.corners, self.bvh.normals, self.bvh.areas

    @cached_property
    def digest(self) -> str:
        """Digest of the triangles, whatever the file format."""
        return sha256(np.ascontiguousarray(self.triangles, "<f4").data).hexdigest()


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read an OBJ, PLY or STL file; other files that it names are not opened.

    Raises:
        UsageError: it cannot be read, has no triangles, or numbers that are infinite or none.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise UsageError(f"'{path}': meshes are files of the types {allowed}; or name a shape")
    try:
        content = read_regular(path, MOST_BYTES).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    if is_cut_off(kind, content):
        raise UsageError(f"'{path}' is cut off: it ends before what its header promises")
    return mesh_of(path, parsed(path, kind, content))


def is_cut_off(kind: str, content: bytes) -> bool:
    """Whether a file of text, or of binary triangles, is shorter than its header says.

    The reader takes what there is.
    """
    if kind == "stl" and not content[:STL_START].lstrip().lower().startswith(b"solid"):
        n_triangles = int.from_bytes(content[STL_HEADER : STL_HEADER + 4], "little")
        return len(content) < STL_HEADER + 4 + STL_TRIANGLE * n_triangles
    header, end, rows = content.partition(b"end_header")
    if kind == "ply" and end and re.search(rb"(?m)^format\s+ascii\b", header):
        counts = re.findall(rb"(?m)^element\s+\S+\s+(\d{1,18})\s*$", header)
        return sum(map(int, counts)) > sum(1 for row in rows.splitlines() if row.strip())
    return False


def parsed(path: Path, kind: str, content: bytes) -> np.ndarray:
    """Corners of triangles, [n, 3, 3], as in the file."""
    import trimesh

    try:
        loaded: Any = trimesh.load_mesh(
            io.BytesIO(content), file_type=kind, process=False, skip_materials=True
        )
        faces, vertices = np.asarray(loaded.faces), np.asarray(loaded.vertices, np.float64)
        if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ValueError("a triangle has a corner that is not there")
        return vertices[faces].reshape(-1, 3, 3)
    except MemoryError:
        raise
    except Exception as error:  # the reader may fail in any way on unchecked input
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise UsageError(f"'{path}' is no {kind.upper()} file: {reason:.120}") from error


def mesh_of(path: Path, triangles: np.ndarray) -> Mesh:
    """Triangles, checked and moved into the middle of the unit cube."""
    if not 1 <= len(triangles) <= MOST_TRIANGLES:
        raise UsageError(f"'{path}' has {len(triangles)} triangles; use 1 to {MOST_TRIANGLES}")
    if not np.isfinite(triangles).all():
        raise UsageError(f"'{path}': there are coordinates that are infinite or no numbers")
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    if max(-low.min(), high.max()) > FARTHEST:
        raise UsageError(f"'{path}': there are coordinates farther away than {FARTHEST:g}")
    extent = float((high - low).max())
    if not extent > 0:
        raise UsageError(f"'{path}': all of it is in one place; nothing can be learned of it")
    scale = extent / SIZE
    origin = (low + high) / 2 - scale / 2
    moved = ((triangles - origin) / scale).astype(np.float32)
    moved = moved[areas_of(moved.astype(np.float64)) > LEAST_AREA]
    if not len(moved):
        raise UsageError(f"'{path}': all of its triangles are lines or points")
    moved, note = outward(path, moved)
    return Mesh(path.name, moved, scale, tuple(map(float, origin)), note)


def outward(path: Path, triangles: np.ndarray) -> tuple[np.ndarray, str]:
    """Triangles oriented outwards, and a note on the mesh."""
    n_open = n_open_edges(triangles)
    if n_open:
        return triangles, (
            f"'{path}' is not closed: {n_open} edges have no neighbour, and near them inside and "
            "outside are a guess"
        )
    a, b, c = triangles.astype(np.float64).transpose(1, 0, 2)
    if np.einsum("nd,nd->", a, np.cross(b, c)) < 0:
        return triangles[:, ::-1], f"'{path}' shows its inside; it was turned"
    return triangles, ""


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write triangles as PLY: corners [n, 3], in float64, since a small mesh may lie far away, and
    numbers of corners [m, 3].
    """
    rows = np.empty(len(faces), [("n", "u1"), ("corners", "<i4", 3)])
    rows["n"], rows["corners"] = 3, faces
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property double x\nproperty double y\nproperty double z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    content = header.encode() + np.ascontiguousarray(vertices, "<f8").tobytes() + rows.tobytes()
    write_file(path, content)
