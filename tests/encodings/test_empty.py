"""Empty: takes inputs and gives nothing but padding."""

import numpy as np
import pytest

import numbanet
from numbanet.registry import ConfigError

BLOB_AND_NOTHING = {
    "otype": "Composite",
    "nested": [{"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 1}, {"otype": "Empty"}],
}


@pytest.mark.parametrize("alignment", [0, 16])
def test_there_are_no_features(alignment):
    encoding = numbanet.create_encoding(3, {"otype": "Empty"}, alignment=alignment, device="cpu")
    y, context = encoding.forward(np.ones((5, 3)))
    assert y.shape == (5, 0)
    assert (encoding.backward(context, y) == np.zeros((5, 3))).all()


def test_padding_of_a_composite_that_ends_with_it():
    encoding = numbanet.create_encoding(3, BLOB_AND_NOTHING, alignment=16, device="cpu")
    y, context = encoding.forward([[0.3, 5.0, 6.0]])
    np.testing.assert_allclose(y[0, :4], [0.31744, 0.674, 0.00856, 0], atol=1e-5)
    assert (y[0, 4:] == 1).all()
    dl_dx = encoding.backward(context, np.ones((1, 16)))
    assert (dl_dx[0, 1:] == 0).all()


def test_a_network_needs_features():
    with pytest.raises(ConfigError, match=r"^encoding: .*no features"):
        numbanet.create_network_with_input_encoding(3, 1, {"otype": "Empty"}, {}, device="cpu")
