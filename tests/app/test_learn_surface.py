"""Surfaces: distances of meshes and formulas, and networks that learn them."""

import json
import struct

import numpy as np
import pytest

import numbanet
from numbanet.app.errors import UsageError
from numbanet.app.learn_surface import learn_surface
from numbanet.app.surfaces import bvh
from numbanet.app.surfaces.distances import N_UNIFORM, Distances
from numbanet.app.surfaces.formulas import SHAPES, Formula
from numbanet.app.surfaces.mesh_file import mesh_of, read_mesh, write_mesh
from numbanet.app.surfaces.tracing import pictures
from numbanet.targets import target_for
from numbanet.volumes import Camera

trimesh = pytest.importorskip("trimesh", reason="needs trimesh")
CPU = target_for("cpu")
CONFIG = {
    "loss": {"otype": "Mape"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12, "base_resolution": 4},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
}
SMALL = {"batch_size": 512, "seed": 7, "mesh_resolution": 24, "device": "cpu"}


def points(n, seed=0):
    return np.random.default_rng(seed).random((n, 3), np.float32)


def soup(n, seed=1):
    """Triangles anywhere, large and small ones."""
    rng = np.random.default_rng(seed)
    middles = rng.random((n, 1, 3))
    return (middles + rng.normal(0, 1, (n, 3, 3)) * rng.choice([1e-3, 0.1], (n, 1, 1))).astype("f4")


def slivers(n, height, seed=0):
    """Triangles whose corners are on a line but for so much."""
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(n, 1, 3))
    along *= 0.6 / np.linalg.norm(along, axis=2, keepdims=True)
    triangles = rng.random((n, 1, 3)) + along * [[0.0], [1.0], [0.5]]
    triangles[:, 2] += height * rng.normal(size=(n, 3))
    return triangles[:, rng.permutation(3)]


def naive_distances(p, triangles):
    """Unsigned distances in float64: the closest of plane, edges and corners."""
    p, (a, b, c) = p.astype(float)[:, None], triangles.astype(float).transpose(1, 0, 2)
    best = np.full((p.shape[0], len(triangles)), np.inf)
    for one, other in ((a, b), (b, c), (c, a)):
        side = other - one
        t = np.einsum("pnd,nd->pn", p - one, side) / np.einsum("nd,nd->n", side, side)
        best = np.minimum(
            best, np.linalg.norm(p - one - np.clip(t, 0, 1)[..., None] * side, axis=2)
        )
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = np.einsum("pnd,nd->pn", p - a, normal)
    foot = p - height[..., None] * normal
    inside = np.ones_like(best, bool)
    for one, other in ((a, b), (b, c), (c, a)):
        inside &= np.einsum("pnd,nd->pn", np.cross(other - one, foot - one), normal) >= 0
    return np.where(inside, np.minimum(np.abs(height), best), best).min(axis=1)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 300])
def test_the_closest_triangle_is_found(n, tmp_path):
    mesh = mesh_of(tmp_path / "soup.ply", soup(n))
    x = points(400)
    found = Distances(mesh, CPU)(x)[:, 0]
    np.testing.assert_allclose(np.abs(found), naive_distances(x, mesh.triangles), atol=2e-6)


@pytest.mark.parametrize("height", [1e-2, 1e-4, 1e-6, 1e-7, 3e-8])
def test_thin_triangles_are_as_close_as_others(height, tmp_path):
    mesh = mesh_of(tmp_path / "slivers.ply", slivers(60, height))
    x = points(400)
    found = Distances(mesh, CPU)(x)[:, 0]
    np.testing.assert_allclose(np.abs(found), naive_distances(x, mesh.triangles), atol=2e-6)


def test_a_needle_has_distances(tmp_path):
    needle = trimesh.creation.box((1, 1e-7, 1e-7)).triangles
    mesh = mesh_of(tmp_path / "needle.ply", np.asarray(needle))
    x = points(3000)
    found = Distances(mesh, CPU)(x)[:, 0]
    along = np.stack([np.clip(x[:, 0], 0.1, 0.9), *np.full((2, len(x)), 0.5)], axis=1)
    np.testing.assert_allclose(np.abs(found), np.linalg.norm(x - along, axis=1), atol=2e-6)


@pytest.mark.parametrize(
    ("make", "distance"),
    [
        (trimesh.creation.box, lambda q: box(q, 0.4)),
        (lambda: trimesh.creation.icosphere(5), lambda q: np.linalg.norm(q, axis=1) - 0.4),
    ],
    ids=["box", "sphere"],
)
def test_signed_distances_of_closed_meshes(make, distance, tmp_path):
    mesh = mesh_of(tmp_path / "mesh.ply", np.asarray(make().triangles))
    assert mesh.note == ""
    x = points(3000)
    np.testing.assert_allclose(Distances(mesh, CPU)(x)[:, 0], distance(x - 0.5), atol=3e-4)
    inverted = mesh_of(tmp_path / "mesh.ply", np.asarray(make().triangles)[:, ::-1])
    assert inverted.note.endswith("shows its inside; it was turned")
    np.testing.assert_allclose(Distances(inverted, CPU)(x), Distances(mesh, CPU)(x), atol=1e-6)


def box(q, half):
    q = np.abs(q) - half
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


def test_the_tree_holds_every_triangle_once():
    for n in (1, 4, 5, 63, 64, 65):
        tree = bvh.build(soup(n, seed=n).astype(float))
        n_leaves = len(tree.boxes) // 2
        assert n <= bvh.LEAF * n_leaves < 8 * n
        assert len(np.unique(tree.corners, axis=0)) == n
        parents, children = tree.boxes[1:n_leaves], tree.boxes[2:].reshape(-1, 2, 6)
        np.testing.assert_array_equal(parents[:, :3], children[:, :, :3].min(axis=1))
        np.testing.assert_array_equal(parents[:, 3:], children[:, :, 3:].max(axis=1))
        assert tree.areas[-1] == 1
        assert (np.diff(tree.areas) >= 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_formulas_are_distances(name):
    """Their gradient has length 1, and samples lie where they should."""
    distances = Distances(Formula(name), CPU)
    x = points(2000)
    step = np.float32(2e-3)
    slopes = [
        (distances(x + step * axis) - distances(x - step * axis)) / (2 * step)
        for axis in np.eye(3, dtype=np.float32)
    ]
    lengths = np.linalg.norm(np.concatenate(slopes, axis=1), axis=1)
    assert np.median(np.abs(lengths - 1)) < 1e-3
    assert np.mean(np.abs(lengths - 1) < 0.02) > 0.93  # all but creases
    uniform = np.random.default_rng(0).random((800, N_UNIFORM), np.float32)
    on, near = (distances(distances.samples(uniform, w, w))[:700, 0] for w in (0.0, 0.05))
    assert np.mean(np.abs(on) < 1e-5) > 0.98
    assert 0.005 < np.abs(near).mean() < 0.05
    inside = np.mean(distances(x) < 0)
    assert 0.01 < inside < 0.3


def test_points_of_a_mesh_are_as_likely_everywhere(tmp_path):
    mesh = mesh_of(tmp_path / "box.ply", np.asarray(trimesh.creation.box((4, 2, 1)).triangles))
    uniform = np.random.default_rng(0).random((16000, N_UNIFORM), np.float32)
    found = (Distances(mesh, CPU).samples(uniform, 0.0, 0.0)[:14000] - 0.5) * mesh.scale
    shares = [
        np.mean(np.abs(np.abs(found[:, d]) - half) < 1e-4) for d, half in enumerate((2, 1, 0.5))
    ]
    np.testing.assert_allclose(shares, np.array([2, 4, 8]) / 14, atol=0.02)


def test_pictures_are_of_the_surface():
    distances = Distances(Formula("sphere"), CPU)
    camera = Camera.looking((0.5, 0.5, 0.5), (0.5, -1.5, 0.5), 41, 31, angle=0.6)
    shaded, coloured = pictures(lambda p: distances(p)[:, 0], camera)
    assert shaded.shape == coloured.shape == (31, 41, 3)
    np.testing.assert_allclose(coloured[15, 20], [0.5, 0, 0.5], atol=0.02)  # faces the camera
    assert coloured[15, 4:37].std(axis=0)[0] > 0.1
    assert (shaded[0] == shaded[0, 0]).all()  # nothing is met there


@pytest.mark.parametrize("kind", ["obj", "ply", "stl"])
def test_meshes_of_all_formats(kind, tmp_path):
    path = tmp_path / f"mesh.{kind}"
    trimesh.creation.torus(1.0, 0.4, 24, 16).export(path)
    mesh = read_mesh(path)
    assert (len(mesh.triangles), mesh.note) == (768, "")
    assert mesh.scale == pytest.approx(2.8 / 0.8)
    low, high = mesh.triangles.min(axis=(0, 1)), mesh.triangles.max(axis=(0, 1))
    np.testing.assert_allclose([low[0], high[0], (low + high)[2] / 2], [0.1, 0.9, 0.5], atol=1e-6)


def stl(n, content=b""):
    return bytes(80) + struct.pack("<I", n) + content


PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    b"property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
)


TEXT_STL = (
    b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"
    b"endloop\nendfacet\nendsolid a\n"
)


def test_files_of_other_editors(tmp_path):
    (tmp_path / "a.ply").write_bytes(PLY.replace(b"\n", b"\r\n"))
    (tmp_path / "b.obj").write_bytes(b"\xef\xbb\xbfv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "c.stl").write_bytes(b"\xef\xbb\xbf" + TEXT_STL)
    (tmp_path / "d.stl").write_bytes(b"\n" * 70 + TEXT_STL.upper())
    for name in ("a.ply", "b.obj", "c.stl", "d.stl"):
        mesh = read_mesh(tmp_path / name)
        assert len(mesh.triangles) == 1
        assert "not closed" in mesh.note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"", "no PLY file"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 999999999\nend_header\n", "a.ply"),
        ("a.stl", stl(4_000_000_000), "cut off"),
        ("a.stl", stl(3, bytes(120)), "cut off"),
        ("a.ply", PLY.replace(b"3 0 1 2\n", b""), "cut off"),
        ("a.ply", PLY.replace(b"face 1", b"face 2"), "cut off"),
        ("a.stl", stl(1, bytes(50)), "nothing can be learned"),
        ("a.stl", stl(1, struct.pack("<12fH", *[float("nan")] * 12, 0)), "infinite or no numbers"),
        ("a.stl", stl(1, struct.pack("<12fH", *[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 0)), "lines"),
        ("a.obj", b"v 0 0 0\nf 1 2 3\n", "a.obj"),
        ("a.obj", b"mtllib /etc/passwd\n", "a.obj"),
        ("a.obj", b"v 1e308 0 0\nv -1e308 0 0\nv 0 1 1\nf 1 2 3\n", "farther away than 1e.30"),
        ("a.obj", b"v 1.7e308 0 0\nv 1.7e308 1 0\nv 1.7e308 1 1\nf 1 2 3\n", "farther away"),
        ("a.obj", bytes(range(256)), "a.obj"),
        ("a.exe", b"", "obj, ply, stl"),
        ("missing.ply", None, "No such file"),
    ],
)
def test_files_that_are_no_meshes(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        learn_surface(path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slivers_have_normals(tmp_path):
    """Triangles whose corners are on a line but for the last bits."""
    mesh = mesh_of(tmp_path / "slivers.ply", slivers(2000, 3e-8))
    faces, corners = mesh.bvh.normals[:, :3], mesh.bvh.corners.reshape(-1, 3, 3)
    np.testing.assert_allclose(np.linalg.norm(faces, axis=1), 1, rtol=1e-6)
    side = (corners[:, 1] - corners[:, 0]).astype(np.float64)
    np.testing.assert_allclose(np.einsum("nd,nd->n", faces, side), 0, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("cone", {}, "neither a file of a mesh nor one of sphere, torus"),
        ("sphere", {"eikonal": -1}, "eikonal: -1 is not allowed"),
        ("sphere", {"eikonal": float("nan")}, "eikonal: nan is not allowed"),
        ("sphere", {"eikonal": 10**400}, "eikonal: an integer of 401 digits"),
        ("sphere", {"eikonal": "1"}, "eikonal: '1' is not allowed"),
        ("sphere", {"n_steps": True}, "steps: True is not allowed"),
        ("sphere", {"seed": 10**5000}, "seed: an integer of"),
        ("sphere", {"mesh_resolution": 5000}, "mesh resolution: 5000"),
        ("sphere", {"n_steps": -1}, "steps: -1"),
        ("sphere", {"config": {"network": {"otype": "x"}}}, "is no network"),
    ],
)
def test_what_is_not_allowed(tmp_path, shape, options, message):
    with pytest.raises(UsageError, match=message):
        learn_surface(shape, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_surface_is_learned(tmp_path):
    result = learn_surface("torus", CONFIG, n_steps=300, output=tmp_path, **SMALL)
    assert result.metrics["iou"] > 0.85
    assert result.metrics["mean_distance"] < 0.02
    report = json.loads(result.report.read_text(), parse_constant=pytest.fail)
    assert report["iou"] == result.metrics["iou"]
    assert [each["step"] for each in report["evaluations"]] == [1, 2, 5, 10, 20, 50, 100, 200, 300]
    assert report["files"] == [path.name for path in result.files]
    assert {path.name for path in tmp_path.iterdir()} == {*report["files"]}
    mesh = trimesh.load_mesh(tmp_path / "mesh.ply")
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.28 * 0.1**2, rel=0.2)


def test_numbers_may_be_those_of_numpy(tmp_path):
    three, few = np.int64(3), np.int64(8)
    options = {"batch_size": few, "seed": three, "mesh_resolution": few, "eikonal": np.float32(0.1)}
    result = learn_surface(
        "torus", CONFIG, n_steps=three, output=tmp_path / "out", device="cpu", **options
    )
    assert json.loads(result.report.read_text())["steps"]["asked"] == 3


def test_a_mesh_is_learned_with_an_eikonal_term_and_goes_on(tmp_path):
    path = tmp_path / "ball.stl"
    trimesh.creation.icosphere(2, 3.0).export(path)
    options = {**SMALL, "mesh_resolution": 0}
    whole = learn_surface(path, CONFIG, n_steps=60, output=tmp_path / "a", eikonal=0.1, **options)
    assert whole.metrics["iou"] > 0.8
    assert whole.metrics["mean_distance"] < 0.3  # of a radius of 3
    asked = iter(range(1, 1000))
    first = learn_surface(
        path, CONFIG, n_steps=60, output=tmp_path / "b", eikonal=0.1,
        interrupted=lambda: next(asked) >= 30, **options,
    )  # fmt: skip
    assert (first.step, first.finished) == (30, False)
    with pytest.raises(UsageError, match=r"with eikonal 0\.1; it cannot change"):
        learn_surface(path, n_steps=60, eikonal=0.2, resume=first.snapshot)
    with pytest.raises(UsageError, match="of something else; it cannot change"):
        learn_surface("sphere", n_steps=60, resume=first.snapshot)
    last = learn_surface(
        path, n_steps=60, output=tmp_path / "b", resume=first.snapshot, mesh_resolution=0
    )
    one, two = (numbanet.load(each.snapshot, device="cpu") for each in (whole, last))
    np.testing.assert_array_equal(one.network.params, two.network.params)
    assert last.metrics == whole.metrics


def test_meshes_that_are_written_can_be_read(tmp_path):
    ball = trimesh.creation.icosphere(2)
    write_mesh(tmp_path / "ball.ply", ball.vertices, ball.faces)
    again = read_mesh(tmp_path / "ball.ply")
    assert (len(again.triangles), again.note) == (len(ball.faces), "")
    for scale, place in ((1e-3, 1e6), (1e-60, 0), (1e25, 0)):
        vertices = ball.vertices * scale + place
        write_mesh(tmp_path / "far.ply", vertices, ball.faces)
        far = read_mesh(tmp_path / "far.ply")
        np.testing.assert_allclose(far.triangles, again.triangles, atol=1e-6)
    write_mesh(tmp_path / "none.ply", np.empty((0, 3)), np.empty((0, 3), int))
    with pytest.raises(UsageError, match="0 triangles"):
        read_mesh(tmp_path / "none.ply")


def test_the_command(command, tmp_path):
    arguments = ["--steps", 2, "--batch-size", 512, "--mesh-resolution", 8, "--device", "cpu"]
    changed = ["--set", "encoding.n_levels=4", "--set", "network.n_neurons=16"]
    code, out, err = command(
        "learn-surface", "box", *arguments, *changed, "--json", "--output", tmp_path / "out"
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["step"] == 2
    assert 0 <= result["iou"] <= 1
    assert (tmp_path / "out" / "mesh.ply").exists()
