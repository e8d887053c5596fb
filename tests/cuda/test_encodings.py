"""Encodings compiled for CUDA: inputs, features and gradients of a thread live in registers."""

import laws
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.device import device, local_array
from numbanet.storage.views import float_vector

SMALL = (
    ("Frequency", {}, 3),
    ("TriangleWave", {}, 3),
    ("SphericalHarmonics", {"degree": 8}, 3),
    ("OneBlob", {"n_bins": 8}, 5),
    ("NRC", {}, 10),
    ("RandomFourier", {"n_features": 32}, 3),
    ("Empty", {}, 2),
    (
        "Composite",
        {
            "nested": [
                {"otype": "Frequency", "n_frequencies": 4, "n_dims_to_encode": 2},
                {"otype": "SphericalHarmonics"},
            ]
        },
        5,
    ),
    (
        "Composite",
        {
            "nested": [
                {"otype": "OneBlob", "n_bins": 8, "n_dims_to_encode": 2},
                {"otype": "SphericalHarmonics"},
            ],
            "reduction": "Product",
        },
        5,
    ),
)


@device
def copy(source, target, n):
    for i in range(n):
        target[i] = source[i]


def kernels(encoding):
    """(what one thread does, the number of arrays that it takes)."""
    n, m = encoding.n_dims, encoding.n_outputs
    forward, backward = encoding.forward, encoding.backward_input
    double_backward = encoding.double_backward_input

    def features(px, py):
        x, y = local_array(n), local_array(m)
        copy(float_vector(px, n), x, n)
        forward(x, x, y)
        copy(y, float_vector(py, m), m)

    def gradient(px, pdy, pdx):
        x, dl_dy, dl_dx = local_array(n), local_array(m), local_array(n)
        copy(float_vector(px, n), x, n)
        copy(float_vector(pdy, m), dl_dy, m)
        backward(x, x, dl_dy, dl_dx)
        copy(dl_dx, float_vector(pdx, n), n)

    def second(px, pdy, pddx, pddy, pdx):
        x, dl_dy, dl_ddx = local_array(n), local_array(m), local_array(n)
        dl_ddy, dl_dx = local_array(m), local_array(n)
        copy(float_vector(px, n), x, n)
        copy(float_vector(pdy, m), dl_dy, m)
        copy(float_vector(pddx, n), dl_ddx, n)
        double_backward(x, x, dl_dy, dl_ddx, dl_ddy, dl_dx)
        copy(dl_ddy, float_vector(pddy, m), m)
        copy(dl_dx, float_vector(pdx, n), n)

    return (features, 2), (gradient, 3), (second, 5)


@pytest.mark.parametrize(("otype", "config", "n_dims"), SMALL, ids=lambda value: str(value)[:40])
def test_arrays_live_in_registers(otype, config, n_dims):
    encoding = laws.create("encoding", otype, config, {"n_dims": n_dims})
    for kernel, n_arrays in kernels(encoding.padded(encoding.n_outputs + 3)):
        text = compile_ptx(kernel, ("uint64",) * n_arrays, (9, 0)).text
        assert ".local" not in text, kernel.__name__
        assert ".f64" not in text, kernel.__name__
        assert "call" not in text, kernel.__name__
