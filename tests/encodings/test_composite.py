"""Composite: which inputs go where, alignment and padding, parts, parameters, errors."""

import numpy as np
import pytest

import numbanet
from numbanet.encodings import Composite, Grid, Identity, OneBlob, SphericalHarmonics
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.composite.encoding import Nested
from numbanet.encodings.composite.total import Sum
from numbanet.registry import ConfigError, create, to_config
from numbanet.unknown_options import UnknownOptionWarning

GRID = {"otype": "Grid", "n_levels": 2, "log2_hashmap_size": 5, "base_resolution": 3}
BLOB = {"otype": "OneBlob", "n_bins": 4}
IDENTITY = {"otype": "Identity"}


def composite(n_dims, *nested, **options):
    config = {"nested": list(nested), **options}
    return create("encoding", config, default="Composite", n_dims=n_dims)


def of(config, n_dims=None, begin=None):
    given = {"n_dims_to_encode": n_dims, "dims_to_encode_begin": begin}
    return config | {key: value for key, value in given.items() if value is not None}


def ranges(encoding):
    return [(nested.dims_to_encode_begin, nested.end) for nested in encoding.nested]


def features(config, x, alignment=0):
    encoding = numbanet.create_encoding(len(x), config, alignment=alignment, device="cpu")
    return encoding(np.array([x]))[0]


@pytest.mark.parametrize(
    ("n_dims", "nested", "expected"),
    [
        (5, [of(IDENTITY, 2), of(BLOB, 3)], [(0, 2), (2, 5)]),
        (5, [of(IDENTITY, 2), BLOB], [(0, 2), (2, 5)]),
        (5, [IDENTITY, of(BLOB, 3)], [(0, 2), (2, 5)]),
        (5, [of(IDENTITY, 2), BLOB, of(BLOB, 3)], [(0, 2), (2, 5)]),  # nothing is left for it
        (5, [of(IDENTITY, 2)], [(0, 2)]),  # three inputs that nobody reads
        (5, [of(IDENTITY, 2, 1), of(BLOB, 1), of(BLOB, 5, 0)], [(1, 3), (3, 4), (0, 5)]),
        (5, [of(IDENTITY, 0), BLOB], [(0, 5)]),
        (5, [of(IDENTITY, np.int64(2)), of(BLOB, 3.0)], [(0, 2), (2, 5)]),
    ],
)
def test_ranges_of_inputs(n_dims, nested, expected):
    assert ranges(composite(n_dims, *nested)) == expected


def test_the_config_says_every_range():
    encoding = composite(
        5, of(IDENTITY, 2), {**BLOB, "otype": "oneblob"}, reduction="concatenation"
    )
    written = to_config(encoding)
    assert written["reduction"] == "Concatenation"
    assert written["nested"] == [
        {"otype": "Identity", "scale": 1.0, "offset": 0.0}
        | {"n_dims_to_encode": 2, "dims_to_encode_begin": 0},
        {"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 3, "dims_to_encode_begin": 2},
    ]
    assert create("encoding", written, default="none", n_dims=5) == encoding


def test_nested_encodings_are_one_blob_by_default():
    assert isinstance(composite(2, {"n_bins": 8}).nested[0].encoding, OneBlob)


def test_overlapping_inputs_get_the_sum_of_the_gradients():
    """tiny-cuda-nn keeps one of them, and leaves those that nobody reads as they were."""
    double, triple = ({"otype": "Identity", "scale": scale} for scale in (2, 3))
    config = {"otype": "Composite", "nested": [of(double, 2, 0), of(triple, 2, 1)]}
    encoding = numbanet.create_encoding(4, config, device="cpu")
    _, context = encoding.forward(np.ones((1, 4)))
    dl_dx = encoding.backward(context, [[1, 10, 100, 1000]])
    assert dl_dx.tolist() == [[2, 20 + 300, 3000, 0]]
    dl_ddy, second = encoding.double_backward(context, np.ones((1, 4)), [[1, 2, 3, 4]])
    assert dl_ddy.tolist() == [[2, 4, 6, 9]]
    assert not second.any()


def test_reductions():
    nested = [of({"otype": "Identity", "scale": 2}, 2), of({"otype": "Identity", "offset": 1}, 2)]
    x = [1.0, 2, 3, 4]
    results = {
        reduction: features({"otype": "composite", "nested": nested, "reduction": reduction}, x)
        for reduction in ("Concatenation", "Sum", "PRODUCT")
    }
    assert results["Concatenation"].tolist() == [2, 4, 4, 5]
    assert results["Sum"].tolist() == [6, 9]
    assert results["PRODUCT"].tolist() == [8, 20]


# Padding


def test_the_next_encoding_begins_at_its_alignment():
    grid = {**GRID, "n_features_per_level": 4}
    encoding = composite(3, of(IDENTITY, 1), of(grid, 1), of(IDENTITY, 1))
    assert [part.first_column for part in encoding.parts] == [0, 4, 12]
    assert (encoding.n_outputs, encoding.required_output_alignment) == (13, 4)
    config = to_config(encoding)
    y = features(config, [0.25, 0.5, 0.75])
    assert y[:4].tolist() == [0.25, 1, 1, 1]
    assert y[12] == 0.75


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (IDENTITY, [0.5, 0.25] + [1] * 14),
        (GRID, [0.5, 1, 0, 0, 0, 0] + [0] * 10),  # the first 1 aligns the grid
        ({"otype": "Composite", "nested": [of(IDENTITY, 1)]}, [0.5, 0.25] + [1] * 14),
    ],
    ids=["identity", "grid", "composite"],
)
def test_padding_is_that_of_the_last_encoding(last, expected):
    config = {"otype": "Composite", "nested": [of(IDENTITY, 1), of(last, 1)]}
    encoding = numbanet.create_encoding(2, config, alignment=16, device="cpu")
    encoding.params[:] = 0
    assert encoding([[0.5, 0.25]])[0].tolist() == expected


def test_padding_of_harmonics_comes_before_them_within_a_composite():
    config = {"otype": "Composite", "nested": [of(IDENTITY, 1), {"otype": "SphericalHarmonics"}]}
    y = features(config, [0.5, 0.5, 0.5, 0.5], alignment=16)
    assert y[:16].tolist() == [0.5] + [1] * 15
    np.testing.assert_allclose(y[16], 0.28209479, rtol=1e-6)
    assert len(y) == 32


@pytest.mark.parametrize(("reduction", "padding"), [("Sum", 2), ("Product", 1)])
def test_padding_is_combined_as_the_features_are(reduction, padding):
    config = {"otype": "Composite", "reduction": reduction}
    nested = [of(IDENTITY, 2), of(IDENTITY, 2)]
    y = features({**config, "nested": nested}, [0.5] * 4, alignment=16)
    assert y[2:].tolist() == [padding] * 14
    y = features({**config, "nested": [*nested, of({**GRID, "n_levels": 1}, 2)]}, [0.5] * 6, 16)
    assert y[2:].tolist() == [padding if reduction == "Sum" else 0] * 14


def test_widths_are_aligned_before_they_are_compared():
    grid = {**GRID, "n_features_per_level": 4, "n_levels": 1}
    config = {"otype": "Composite", "nested": [of(IDENTITY, 3), of(grid, 1)], "reduction": "Sum"}
    encoding = numbanet.create_encoding(4, config, device="cpu")
    encoding.params[:] = 5
    assert encoding([[1, 2, 3, 0]]).tolist() == [[6, 7, 8, 6]]


# Parts and parameters


def test_parts_of_nested_composites():
    inner = {"otype": "Composite", "nested": [of(GRID, 2), of({"otype": "SphericalHarmonics"}, 3)]}
    encoding = composite(8, of(BLOB, 1), of(inner, 5, 2), of(GRID, 1))
    grid, other = (
        Grid(n_dims=n, **{k: v for k, v in GRID.items() if k != "otype"}) for n in (2, 1)
    )
    found = [(type(p.encoding), *p[1:]) for p in encoding.parts]
    assert found == [
        (OneBlob, 0, 0, 0),
        (Grid, 2, 4, 0),
        (SphericalHarmonics, 4, 8, grid.n_params),
        (Grid, 7, 24, grid.n_params),
    ]
    assert encoding.n_params == grid.n_params + other.n_params
    assert encoding.partition_columns == ((4, 6), (6, 8), (24, 26), (26, 28))


def test_a_sum_is_one_part():
    encoding = composite(2, of(IDENTITY, 1), of(IDENTITY, 1), reduction="Sum")
    assert [type(part.encoding) for part in encoding.parts] == [Sum]
    assert encoding.parts == (encoding.padded(1).parts[0],)


def test_initial_parameters_are_drawn_in_the_order_of_the_encodings():
    config = {"otype": "Composite", "nested": [of(GRID, 2), of(IDENTITY, 1), of(GRID, 1)]}
    encoding = numbanet.create_encoding(4, config, seed=5, device="cpu")
    rng = numbanet.random.Pcg32(5)
    first, second = (
        create("encoding", GRID, default="none", n_dims=n).initial_params(rng) for n in (2, 1)
    )
    np.testing.assert_array_equal(encoding.params, np.concatenate([first, second]))
    named = encoding.named_parameters()
    assert list(named) == ["0.params", "2.params"]
    np.testing.assert_array_equal(named["2.params"], second)


def test_random_corners_need_the_whole_batch():
    stochastic = {**GRID, "stochastic_interpolation": True}
    assert composite(3, of(stochastic, 2), of(IDENTITY, 1)).needs_whole_batch
    assert not composite(3, of(GRID, 2), of(IDENTITY, 1)).needs_whole_batch


# Errors


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ("OneBlob", r"^encoding\.nested: expected a list"),
        ([], r"^encoding\.nested: .*at least one"),
        ([of(IDENTITY, 0)], r"^encoding\.nested: .*at least one"),
        ([of(IDENTITY, 1), 7], r"^encoding\.nested\[1\]: expected a JSON object, got 7"),
        ([IDENTITY, BLOB], r"^encoding\.nested\[1\]\.n_dims_to_encode: .*all encodings but one"),
        (
            [of(IDENTITY, 1, 0), BLOB],
            r"^encoding\.nested\[1\]\.n_dims_to_encode: .*dims_to_encode_begin",
        ),
        ([of(IDENTITY, 4), of(BLOB, 3)], r"^encoding\.nested: they encode 7 inputs.* are 6"),
        ([of(IDENTITY, 4, 3)], r"^encoding\.nested\[0\]\.n_dims_to_encode: inputs 3 to 7 of 6"),
        ([of(IDENTITY, -1)], r"^encoding\.nested\[0\]\.n_dims_to_encode: -1 .*0 or more"),
        ([of(IDENTITY, 1.5)], r"^encoding\.nested\[0\]\.n_dims_to_encode: .*1\.5"),
        ([of(IDENTITY, 1, True)], r"^encoding\.nested\[0\]\.dims_to_encode_begin: .*True"),
        ([{"otype": "Nonsense"}], r"^encoding\.nested\[0\]\.otype: 'Nonsense'"),
        (
            [of(IDENTITY, 3), {"otype": "SphericalHarmonics", "degree": 9}],
            r"^encoding\.nested\[1\]\.degree: 9",
        ),
        (
            [{"otype": "Composite", "nested": [of(BLOB, 3), {"n_bins": 5}]}],
            r"^encoding\.nested\[0\]\.nested\[1\]\.n_bins: 5",
        ),
    ],
)
def test_errors_name_the_path(nested, message):
    with pytest.raises(ConfigError, match=message):
        create("encoding", {"nested": nested}, default="Composite", n_dims=6)


def test_sums_are_of_equal_widths():
    with pytest.raises(ConfigError, match=r"^encoding\.reduction: 'Sum' .*equal width.*2.*4"):
        composite(3, of(IDENTITY, 2), of(BLOB, 1), reduction="Sum")


class Shifts(AbstractEncoding):
    """Three parameters."""

    n_dims, n_outputs, n_params = 1, 1, 3
    forward = backward_input = double_backward_input = None


def test_grids_at_odd_places_are_not_accessed_in_pairs():
    grid = create("encoding", {"n_levels": 1, "log2_hashmap_size": 3}, default="Grid", n_dims=1)
    shifts, plain = Shifts(), create("encoding", {}, default="Identity", n_dims=1)
    inner = Composite(n_dims=1, nested=(Nested(grid, 0), Nested(shifts, 0), Nested(grid, 0)))
    for before, is_even in (([], True), ([plain], True), ([shifts], False), ([shifts] * 2, True)):
        nested = tuple(Nested(encoding, 0) for encoding in (*before, inner))
        made = Composite(n_dims=1, nested=nested)
        found = [part.encoding.begins_even for part in made.parts if part.encoding.n_params > 3]
        assert found == [is_even, not is_even]
        assert made.n_params == sum(each.encoding.n_params for each in nested)


def test_unknown_options_of_nested_encodings_warn():
    with pytest.warns(UnknownOptionWarning, match=r"encoding\.nested\[1\]\.n_bin: .*n_bins"):
        composite(2, of(IDENTITY, 1), {**BLOB, "n_bin": 8})


def test_made_without_a_config():
    from numbanet.encodings.composite.encoding import Nested

    made = Composite(n_dims=3, nested=(Nested(Identity(n_dims=2), 1),))
    assert made == composite(3, of(IDENTITY, 2, 1))
