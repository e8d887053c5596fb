"""OneBlobFrequency: the parts that it is made of."""

import naive
import numpy as np
import pytest

from numbanet.encodings import Identity, OneBlob, OneBlobFrequency, TriangleWave
from numbanet.registry import ConfigError, create, to_config


def made(n_dims, **config):
    return create("encoding", config, default="OneBlobFrequency", n_dims=n_dims)


def test_parts():
    encoding = made(10, n_frequencies=3, n_bins=8)
    found = [(type(p.encoding), p.first_dim, p.first_column) for p in encoding.parts]
    assert found == [(TriangleWave, 0, 0), (OneBlob, 3, 9), (Identity, 8, 49)]
    assert encoding.n_outputs == 51
    assert [type(part.encoding) for part in made(8).parts] == [TriangleWave, OneBlob]


def test_defaults_are_those_of_the_composite():
    encoding = made(9)
    twin = naive.encoding({"otype": "NRC"}, 9)
    x = np.linspace(0.05, 0.95, 9, dtype=np.float32)[None]
    y = np.full((1, 3 * 12 + 5 * 4 + 1), 99, np.float32)
    encoding.forward_rows(x, 0, 1, np.zeros(0, np.float32), y, 0, 0)
    np.testing.assert_allclose(y, twin.forward(x.astype(np.float64), None), atol=3e-6)


def test_two_names():
    assert made(8, otype="nrc") == made(8)
    expected = {"otype": "OneBlobFrequency", "n_frequencies": 12, "n_bins": 4}
    assert to_config(made(8, otype="NRC")) == expected
    assert isinstance(made(8), OneBlobFrequency)


@pytest.mark.parametrize(
    ("n_dims", "config", "message"),
    [
        (7, {}, r"^encoding\.n_dims: 7 .*8 or more"),
        (8, {"n_bins": 3}, r"^encoding\.n_bins: 3 .*power of two"),
        (8, {"n_frequencies": 0}, r"^encoding\.n_frequencies: 0"),
    ],
)
def test_errors(n_dims, config, message):
    with pytest.raises(ConfigError, match=message):
        made(n_dims, **config)
