"""Grids: sizes and hashes against known numbers, values against a slow twin, gradients against
central differences of that twin."""

import hashlib
from functools import cache

import naive
import numpy as np
import pytest
from grid_twin import HASHES, GridTwin
from numba import njit

from numbanet.create_model import create_network_with_input_encoding
from numbanet.device import float_bits
from numbanet.encodings.grid import Grid
from numbanet.encodings.grid.indexing import divide, hash_function, reciprocal
from numbanet.registry import ConfigError, create, to_config

IMAGE = {"n_levels": 16, "log2_hashmap_size": 15, "base_resolution": 16, "per_level_scale": 1.5}
GUARD = np.float32(1.5e30)
SMALL = {"n_levels": 3, "base_resolution": 4, "per_level_scale": 1.7}

# Every type, interpolation, number of features and of dimensions up to 4; 5 to 7 are further down.
CASES = {
    "1-D": (1, {**SMALL, "interpolation": "Smoothstep", "log2_hashmap_size": 3}),
    "2-D": (2, {**SMALL, "log2_hashmap_size": 5}),
    "2-D smooth": (
        2,
        {**SMALL, "type": "Tiled", "interpolation": "Smoothstep", "n_features_per_level": 1},
    ),
    "3-D": (3, {**SMALL, "log2_hashmap_size": 7, "n_features_per_level": 4, "hash": "BaseConvert"}),
    "3-D smooth": (
        3,
        {**SMALL, "type": "Dense", "interpolation": "Smoothstep", "n_features_per_level": 8},
    ),
    "3-D nearest": (3, {**SMALL, "log2_hashmap_size": 7, "interpolation": "Nearest"}),
    "4-D smooth": (
        4,
        {**SMALL, "n_levels": 2, "log2_hashmap_size": 9, "interpolation": "Smoothstep"},
    ),
}
cases = pytest.mark.parametrize("case", CASES)


class Example:
    """A grid, its twin, and data: samples inside and outside [0, 1], off the cell borders."""

    def __init__(self, n_dims, options, n=150):
        self.grid, self.twin = Grid(n_dims=n_dims, **options), GridTwin(n_dims, **options)
        rng = np.random.default_rng(1)
        x = rng.uniform(-0.6, 1.6, (40 * n, n_dims)).astype(np.float32)
        self.x = x[self.twin.distance_to_border(x.astype(np.float64)) > 0.01][:n]
        self.params = rng.normal(size=self.twin.n_params).astype(np.float32)
        self.dl_dy = rng.normal(size=(n, self.grid.n_outputs)).astype(np.float32)
        self.dl_ddx = rng.normal(size=(n, n_dims)).astype(np.float32)
        assert len(self.x) == n

    def dl_dy_of(self, level):
        start, stop = self.grid.partition_columns[level]
        return np.ascontiguousarray(self.dl_dy[:, start:stop])


@cache
def example(case):
    return Example(*CASES[case])


def assert_close(actual, expected, tolerance):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


# Sizes


def test_levels_of_the_image_config():
    grid = Grid(n_dims=2, **IMAGE)
    resolutions = [16, 24, 36, 54, 81, 122, 183, 274, 411, 616, 923, 1384, 2076, 3114, 4671, 7007]
    assert [level.resolution for level in grid.levels] == resolutions
    assert [level.size for level in grid.levels] == [256, 576, 1296, 2920, 6568, 14888] + [
        2**15
    ] * 10
    scales = [15, 23, 35, 53, 80, 120.499985]
    assert [level.scale for level in grid.levels[:6]] == [np.float32(scale) for scale in scales]
    assert grid.n_params == 708368
    assert grid.n_outputs == 32
    assert grid.partition_columns == tuple((k, k + 2) for k in range(0, 32, 2))


@pytest.mark.parametrize(("growth", "n_params"), [(2.0, 14229504), (1.5, 13026992)])
def test_levels_in_3d(growth, n_params):
    assert Grid(n_dims=3, per_level_scale=growth).n_params == n_params


def test_integral_scales_have_no_extra_vertex():
    grid = Grid(n_dims=1, n_levels=12, base_resolution=16)
    assert [level.resolution for level in grid.levels] == [16 << k for k in range(12)]


def test_dense_grids_grow_to_256():
    grid = Grid(n_dims=2, type="Dense", n_levels=5)
    assert grid.per_level_scale == 2.0
    assert grid.levels[-1].resolution == 256
    assert Grid(n_dims=2, type="Dense", n_levels=1).levels[0].resolution == 16


def test_tiled_tables_have_the_size_of_the_base():
    assert [level.size for level in Grid(n_dims=3, type="Tiled", base_resolution=5).levels] == [
        125
    ] * 16


# Entries


@pytest.mark.parametrize(
    ("vertex", "expected"),
    [
        ((1, 2), 1013904227),
        ((100, 200), 2606174764),
        ((5, 6, 7), 3848060720),
        ((1000, 2000, 3000), 2316627744),
        ((2**32 - 1, 0, 3), 1878587712),
        ((1, 2, 3, 4), 3228761608),
    ],
)
def test_coherent_prime_hash(vertex, expected):
    cell = np.array(vertex, np.uint32)
    assert hash_function("CoherentPrime", len(vertex))(cell, 0) == expected
    before = cell.copy()
    before[0] -= np.uint32(1)
    assert hash_function("CoherentPrime", len(vertex))(before, 1) == expected


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("n_dims", [1, 3, 7])
def test_hashes_match_the_twin(name, n_dims):
    function, twin = hash_function(name, n_dims), HASHES[name]
    cells = np.random.default_rng(0).integers(0, 2**32, (20, n_dims), np.uint32)
    cells[:3] = [[0], [1], [2**32 - 1]]
    for k, cell in enumerate(cells):
        corner = k % 2**n_dims
        vertex = [(int(c) + (corner >> d & 1)) % 2**32 for d, c in enumerate(cell)]
        assert function(cell, corner) == twin(vertex)


def test_rng_hash_is_pcg32():
    assert hash_function("Rng", 2)(np.zeros(2, np.uint32), 0) == 634364130
    assert hash_function("Rng", 2)(np.array([1000, 0], np.uint32), 0) == 45264763


def test_division_without_division():
    rng = np.random.default_rng(0)
    divisors = [1, 2, 3, 7, 8, 1000, 2**16, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]
    divisors += [int(d) for d in 2 ** rng.uniform(0, 32, 50)]
    for divisor in divisors:
        multiple = divisor * (rng.integers(0, 2**32) // divisor)
        numbers = {0, 1, divisor - 1, divisor, 2**32 - 1, multiple, max(multiple - 1, 0)}
        for n in numbers | set(rng.integers(0, 2**32, 20).tolist()):
            actual = divide(np.uint32(n), np.uint32(divisor), reciprocal(divisor))
            assert actual == divmod(n, divisor)


@pytest.mark.parametrize(
    ("n_dims", "options"),
    [
        (2, {"type": "Dense", "n_levels": 1, "base_resolution": 5}),
        (2, {"type": "Tiled", "n_levels": 3, "base_resolution": 5}),
        # more than 2^32 vertices, and tables whose size is no power of two
        (3, {"type": "Tiled", "n_levels": 2, "base_resolution": 10, "per_level_scale": 200.0}),
        (2, {"type": "Tiled", "n_levels": 2, "base_resolution": 10, "per_level_scale": 2e4}),
        (3, {"type": "Hash", "n_levels": 3, "base_resolution": 3, "log2_hashmap_size": 6}),
    ],
)
def test_entries_match_the_twin(n_dims, options):
    grid, twin = Grid(n_dims=n_dims, **options), GridTwin(n_dims, **options)
    entry, level_constants = grid.entry, grid.level_constants

    @njit
    def entries(k, cells, corner, result):
        for i in range(len(cells)):
            result[i] = entry(level_constants(k, None), cells[i], corner)

    rng = np.random.default_rng(0)
    for k in range(grid.n_levels):
        cells = rng.integers(-2, twin.resolutions[k] + 2, (100, n_dims))
        cells[:3] = [[0], [-1], [twin.resolutions[k] - 1]]
        cells[50:] = rng.integers(-(2**31), 2**31, (50, n_dims))  # whose numbers wrap around
        result = np.zeros(len(cells), np.int64)
        for corner in range(2**n_dims):
            entries(k, cells.astype(np.uint32), corner, result)
            vertices = (cells + (corner >> np.arange(n_dims) & 1)) % 2**32
            found = result + int(grid.levels[k].offset)
            assert found.tolist() == [twin.entry(k, vertex) for vertex in vertices.tolist()]
            assert len(set(result.tolist())) > 20


# Values


@cases
def test_forward_matches_the_twin(case):
    data = example(case)
    expected = data.twin.forward(data.x.astype(np.float64), data.params)
    ys = np.full((len(data.x) + 3, expected.shape[1] + 2), GUARD)
    data.grid.forward_rows(data.x, 0, len(data.x), data.params, ys, 2, 1)
    assert_close(ys[2:-1, 1:-1], expected, 1e-5)
    ys[2:-1, 1:-1] = GUARD
    assert (ys == GUARD).all()
    for i in range(5):
        y = np.full(expected.shape[1], GUARD)
        data.grid.forward(data.x[i], data.params, y)
        assert_close(y, expected[i], 1e-5)


@cases
def test_parameter_gradient_matches_the_twin(case):
    data = example(case)
    expected = data.twin.backward_params(data.x.astype(np.float64), data.dl_dy)
    total = np.zeros_like(data.params)
    for level in range(data.grid.n_levels):
        data.grid.backward_params_rows(level, data.x, data.params, data.dl_dy_of(level), total)
    assert_close(total, expected, 1e-5)
    for i in range(len(data.x)):
        data.grid.backward_params(data.x[i], data.params, -data.dl_dy[i], total)
    assert_close(total + expected, expected, 1e-5)


def test_levels_touch_their_own_parameters_only():
    data = example("2-D")
    for k, level in enumerate(data.grid.levels):
        gradient = np.zeros_like(data.params).reshape(-1, data.grid.n_features_per_level)
        data.grid.backward_params_rows(
            k, data.x, data.params, data.dl_dy_of(k), gradient.reshape(-1)
        )
        gradient[level.offset : level.offset + level.size] = 0
        assert (gradient == 0).all()


@cases
def test_input_gradient_is_the_slope(case):
    data = example(case)
    x, n_dims = data.x.astype(np.float64), data.grid.n_dims
    slopes = [data.twin.along(x, data.params, np.eye(n_dims)[d][None]) for d in range(n_dims)]
    expected = np.einsum("dnk,nk->nd", slopes, data.dl_dy)
    actual = np.full((len(x), n_dims), GUARD)
    for i in range(len(x)):
        data.grid.backward_input(data.x[i], data.params, data.dl_dy[i], actual[i])
    if data.grid.interpolation == "Nearest":
        assert (actual == 0).all()
    else:
        assert_close(actual, expected, 2e-5)


@cases
def test_double_backward_of_inputs_is_the_slope_of_the_gradient(case):
    data = example(case)
    x, n_dims, u = data.x.astype(np.float64), data.grid.n_dims, data.dl_ddx.astype(np.float64)
    expected_dl_ddy = data.twin.along(x, data.params, u)
    step, expected_dl_dx = 1e-4, np.zeros((len(x), n_dims))
    for d in range(n_dims):
        there, back = (
            data.twin.along(x + sign * step * np.eye(n_dims)[d], data.params, u, step)
            for sign in (1, -1)
        )
        expected_dl_dx[:, d] = np.sum((there - back) * data.dl_dy, axis=1) / (2 * step)
    dl_ddy, dl_dx = np.full_like(data.dl_dy, GUARD), np.full_like(data.x, GUARD)
    for i in range(len(x)):
        data.grid.double_backward_input(
            data.x[i], data.params, data.dl_dy[i], data.dl_ddx[i], dl_ddy[i], dl_dx[i]
        )
    if data.grid.interpolation == "Nearest":
        assert (dl_ddy == 0).all()
        assert (dl_dx == 0).all()
    elif n_dims == 1 and data.grid.interpolation == "Linear":
        assert (dl_dx == 0).all()
    else:
        assert_close(dl_ddy, expected_dl_ddy, 2e-5)
        assert_close(dl_dx, expected_dl_dx, 2e-4)


@cases
def test_double_backward_of_parameters_is_the_slope_of_the_gradient(case):
    data = example(case)
    x, u, step = data.x.astype(np.float64), data.dl_ddx.astype(np.float64), 1e-5
    there, back = (data.twin.backward_params(x + s * step * u, data.dl_dy) for s in (1, -1))
    expected = (there - back) / (2 * step)
    total = np.zeros_like(data.params)
    for level in range(data.grid.n_levels):
        dl_dy = data.dl_dy_of(level)
        data.grid.double_backward_params_rows(level, data.x, data.params, dl_dy, data.dl_ddx, total)
    if data.grid.interpolation == "Nearest":
        assert (total == 0).all()
        return
    assert_close(total, expected, 2e-5)
    for i in range(len(x)):
        data.grid.double_backward_params(
            data.x[i], data.params, -data.dl_dy[i], data.dl_ddx[i], total
        )
    assert_close(total + expected, expected, 2e-5)


@pytest.mark.parametrize("n_dims", [5, 7])
def test_many_dimensions(n_dims):
    options = {"n_levels": 2, "base_resolution": 2, "log2_hashmap_size": 8}
    data = Example(n_dims, options, n=20)
    x = data.x.astype(np.float64)
    ys = np.empty((20, data.grid.n_outputs), np.float32)
    data.grid.forward_rows(data.x, 0, 20, data.params, ys, 0, 0)
    assert_close(ys, data.twin.forward(x, data.params), 1e-5)
    gradient = np.zeros_like(data.params)
    for level in range(2):
        data.grid.backward_params_rows(level, data.x, data.params, data.dl_dy_of(level), gradient)
    assert_close(gradient, data.twin.backward_params(x, data.dl_dy), 1e-5)


def test_a_vertex_has_the_value_of_its_entry():
    """Scale 16 is exact in float32, so sample (k - 1/2) / 16 lies on vertex k."""
    grid = Grid(n_dims=2, n_levels=1, base_resolution=17, n_features_per_level=1)
    params = np.arange(grid.n_params, dtype=np.float32)
    vertices = np.stack(np.meshgrid(*[np.arange(-2, 19)] * 2), -1).reshape(-1, 2)
    x = ((vertices - 0.5) / 16).astype(np.float32)
    ys = np.empty((len(x), 1), np.float32)
    grid.forward_rows(x, 0, len(x), params, ys, 0, 0)
    numbers = (vertices[:, 0] + 17 * vertices[:, 1]) % 2**32 % grid.levels[0].size
    np.testing.assert_array_equal(ys[:, 0], numbers)


def test_far_inputs_stay_inside_the_table():
    data = example("2-D")
    rng = np.random.default_rng(0)
    x = (10 ** rng.uniform(0, 6, (300, 2)) * rng.choice([-1, 1], (300, 2))).astype(np.float32)
    whole = np.full(data.grid.n_params + 2, np.nan, np.float32)
    whole[1:-1] = 1
    ys = np.empty((300, data.grid.n_outputs), np.float32)
    data.grid.forward_rows(x, 0, 300, whole[1:-1], ys, 0, 0)
    np.testing.assert_allclose(ys, 1, rtol=1e-6)
    gradient = np.full(data.grid.n_params + 2, np.nan, np.float32)
    gradient[1:-1] = 0
    dl_dy = np.ones((300, 2), np.float32)
    for level in range(data.grid.n_levels):
        data.grid.backward_params_rows(level, x, whole[1:-1], dl_dy, gradient[1:-1])
    assert np.isnan(gradient[[0, -1]]).all()
    np.testing.assert_allclose(gradient[1:-1].sum(), 300 * data.grid.n_outputs, rtol=1e-4)


# Fixed-point inputs, stochastic gradients


def test_fixed_point_positions():
    options = {"n_levels": 3, "base_resolution": 6, "per_level_scale": 1.3, "fixed_point_pos": True}
    grid, twin = Grid(n_dims=2, **options), GridTwin(2, **options)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (300, 2), np.uint32)  # among them, bits of infinity and NaN
    bits[:4] = [[0], [2**32 - 1], [0x7F800001], [0xFFC00000]]
    params = rng.normal(size=grid.n_params).astype(np.float32)
    ys = np.empty((300, grid.n_outputs), np.float32)
    grid.forward_rows(bits.view(np.float32), 0, 300, params, ys, 0, 0)
    assert_close(ys, twin.forward(bits, params), 1e-5)
    floats = GridTwin(2, **{**options, "fixed_point_pos": False})
    assert_close(ys, floats.forward(bits / 2**32, params), 1e-5)
    y = np.empty(grid.n_outputs, np.float32)
    grid.forward(bits[3].view(np.float32), params, y)
    assert_close(y, ys[3], 1e-6)


def test_stochastic_gradients_take_one_corner_each():
    options = {"n_levels": 2, "base_resolution": 4, "log2_hashmap_size": 4}
    data = Example(2, options)
    stochastic = Grid(n_dims=2, stochastic_interpolation=True, **options)
    n, total = len(data.x), np.zeros_like(data.params)
    expected = np.zeros_like(data.params)
    for level in range(2):
        stochastic.backward_params_rows(level, data.x, data.params, data.dl_dy_of(level), total)
        cells, t = data.twin.locate(level, data.x.astype(np.float64))
        for i in range(n):
            rng = naive.PCG32(1337)
            rng.advance(i + level * n)
            u = rng.next_float()
            vertex = ((cells[i] + (u < t[i])) % 2**32).tolist()
            entry = data.twin.entry(level, vertex)
            expected.reshape(-1, 2)[entry] += data.dl_dy[i, 2 * level : 2 * level + 2]
    assert_close(total, expected, 1e-5)
    full = np.zeros_like(data.params)
    for i in range(n):  # a sample by itself has no number: all corners, which is the expectation
        stochastic.backward_params(data.x[i], data.params, data.dl_dy[i], full)
    assert_close(full, data.twin.backward_params(data.x.astype(np.float64), data.dl_dy), 1e-5)


# Config


def make(n_dims=2, **config):
    return create("encoding", config, default="Grid", n_dims=n_dims)


@pytest.mark.parametrize(
    ("otype", "expected"),
    [("Grid", "Hash"), ("HashGrid", "Hash"), ("tiledgrid", "Tiled"), ("DenseGrid", "Dense")],
)
def test_names_choose_the_type(otype, expected):
    assert make(otype=otype).type == expected
    assert make(otype=otype, type="tile").type == "Tiled"


@pytest.mark.parametrize("key", ["n_features", "n_grid_features"])
def test_number_of_features_instead_of_levels(key):
    grid = make(n_features_per_level=4, **{key: 32})
    assert grid == make(n_features_per_level=4, n_levels=8)
    assert grid.n_outputs == 32


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"otype": "DenseGrid", "n_levels": 3, "base_resolution": 7},
        {"otype": "TiledGrid", "n_features": 8, "hash": "rng", "interpolation": "SMOOTHSTEP"},
        {"fixed_point_pos": True, "stochastic_interpolation": True, "per_level_scale": 1.26},
    ],
)
def test_config_round_trip(config):
    grid = make(**config)
    again = make(**to_config(grid))
    assert again == grid
    assert hash(again) == hash(grid)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_features": 32, "n_levels": 16}, "encoding.n_features: 32 .* only one of"),
        ({"n_grid_features": 32, "n_features": 32}, "encoding.n_grid_features: 32 .* only one of"),
        ({"n_features": 33}, "encoding.n_features: 33 .* multiple of 2"),
        ({"n_features_per_level": 3}, "encoding.n_features_per_level: 3 .* 1, 2, 4 or 8"),
        ({"n_levels": 129}, "encoding.n_levels: 129 .* 1 to 128"),
        ({"n_levels": 0}, "encoding.n_levels: 0"),
        ({"n_dims": 8}, "encoding.n_dims: 8 .* 1 to 7"),
        ({"type": "Sparse"}, "encoding.type: 'Sparse' .* Hash, Dense, Tiled"),
        ({"hash": "MD5"}, "encoding.hash: 'MD5' .* CoherentPrime"),
        ({"interpolation": "Cubic"}, "encoding.interpolation: 'Cubic' .* Smoothstep"),
        ({"log2_hashmap_size": 32}, "encoding.log2_hashmap_size: 32 .* 0 to 31"),
        ({"base_resolution": 0}, "encoding.base_resolution: 0"),
        ({"per_level_scale": 0.0}, "encoding.per_level_scale: 0.0"),
        ({"n_levels": 128}, "encoding.per_level_scale: 2.0 .* resolution"),
        (
            {"n_levels": 60, "type": "Dense", "base_resolution": 10000, "per_level_scale": 1.0},
            "encoding.n_levels: 60",
        ),
    ],
)
def test_impossible_configs(config, message):
    with pytest.raises(ConfigError, match=message):
        make(**config)


def test_initial_params_are_small_and_in_device_order():
    class Ramp:
        def device_uniform(self, n):
            return np.arange(n, dtype=np.float32) / np.float32(n)

    grid = make(n_levels=2, base_resolution=4)
    params = grid.initial_params(Ramp())
    assert params.dtype == np.float32
    np.testing.assert_allclose(params, np.linspace(-1e-4, 1e-4, grid.n_params, False), atol=1e-10)


def test_initial_params_are_those_of_tinycudann_bit_for_bit():
    """tinycudann 2.0 made 6144 parameters with seed 7; the digest is that of their bytes."""
    grid = {"otype": "TiledGrid", "n_levels": 4, "base_resolution": 8}
    network = {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2}
    model = create_network_with_input_encoding(3, 4, grid, network, seed=7, device="cpu")
    params = model.params.astype("<f4")
    expected = [-8.4111925e-06, -6.9211601e-05, 3.3917426e-05, -2.6578688e-05]
    np.testing.assert_array_equal(params[-4:], np.float32(expected))
    digest = hashlib.sha256(params.tobytes()).hexdigest()
    assert digest == "1a322ddcf479919c71411f92ec115d792c8e81c99d2e88d730714314c09ea96b"


# The leaves of device code that grids brought


def test_bits_of_floats():
    for x in (0.0, 1.0, -2.5, 1e-40):
        assert float_bits(np.float32(x)) == np.float32(x).view(np.uint32)
