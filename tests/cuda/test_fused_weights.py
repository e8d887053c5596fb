"""Weights that come one matrix after the other, where not all fit: as exact as those that stay."""

from dataclasses import replace

import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import mlp
from test_fused import CASES, ONE_BLOB, ROUNDING, Case, emulated
from test_wide import WIDE, assert_wide

from numbanet.cuda.block.layout import MOST_SHARED

BINS = {"otype": "OneBlob", "n_bins": 64}
DEEP = {
    "deepest": (2, 3, "float16", ONE_BLOB, mlp("FullyFusedMLP", 128, 9, "Tanh"), "L2"),
    "bins": (2, 3, "float16", BINS, mlp("FullyFusedMLP", 128, 5, "Tanh"), "RelativeL2"),
    "thinner": (2, 3, "float16", ONE_BLOB, mlp("FullyFusedMLP", 64, 8, "Tanh"), "L2"),
    "shallow": (2, 3, "bfloat16", ONE_BLOB, mlp("FullyFusedMLP", 80, 1, "SiLU"), "L2"),
}


def streamed(engine):
    """As on a GPU with too little shared memory."""
    shape = engine.fused.inference_shape
    engine.fused.inference_shape = replace(shape, layout=replace(shape.layout, streams=True))
    engine.fused._can_train = False
    engine.wide.layout = replace(engine.wide.layout, streams=True)
    return engine


def case_of(name, device, n=65):
    case = Case(name, device, n, cases=CASES | WIDE | DEEP, n_candidates=40)
    case.streamed = streamed(case.engine())
    return case


@pytest.mark.parametrize("name", ["hash", "wide_entries", "one_blob", "sine", "leaky", "shallow"])
def test_inference_is_the_same(cuda_device, name):
    case = case_of(name, cuda_device, 257)
    y, launches = case.launched(case.streamed, case.inference)
    assert [name.startswith("fused_inference") for name in launches] == [True]
    np.testing.assert_array_equal(y, case.inference(case.fused))


@pytest.mark.parametrize("name", ["hash", "thin", "leaky", "composite", "smooth", "shallow"])
def test_training_computes_what_the_chain_does(cuda_device, name):
    """With an odd number of matrices for a sample, and with an even one."""
    case = case_of(name, cuda_device)
    (loss, gradients), launches = case.launched(case.streamed, case.train)
    assert_wide(launches)
    expected, of_chain = case.train(case.engine(fused=False))
    tolerance = 4 * ROUNDING[case.precision]
    assert loss == pytest.approx(expected, rel=tolerance)
    for part in case.parts:
        assert_close(gradients[part], of_chain[part], 2 * tolerance)


@pytest.mark.parametrize("with_params", [True, False])
@pytest.mark.parametrize("name", ["thin", "leaky"])
def test_gradients_of_inputs(cuda_device, name, with_params):
    case = case_of(name, cuda_device)
    dl_dx, gradients = case.input_gradients(case.streamed, with_params=with_params)
    case.assert_input_gradients(dl_dx, lambda y: case.loss_of(y)[1])
    if with_params:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


@pytest.mark.parametrize("n", [0, 1, 31, 33, 257])
def test_any_batch_size(cuda_device, n):
    """Also where some warps of a block have no samples: they copy and wait with the others."""
    case = case_of("leaky", cuda_device, n)
    np.testing.assert_array_equal(case.inference(case.streamed), case.inference(case.fused))
    loss, gradients = case.train(case.streamed)
    expected, of_resident = case.train(case.fused)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_close(gradients, of_resident, 1e-5)


@pytest.mark.parametrize("name", ["thin", "leaky"])
def test_a_block_takes_one_tile_after_another(pytestconfig, name):
    """The emulator looks for matrices that are read before they are there, or replaced too soon."""
    device = emulated(pytestconfig, n_multiprocessors=1, racecheck="global")
    case = case_of(name, device, 600)
    exact = case.twin.inference(case.x, case.params)
    case.assert_as_exact(case.inference(case.streamed), case.reference.inference(case.x), exact)
    for _ in range(2):
        _, gradients = case.train(case.streamed)
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


def test_matrices_that_do_not_fit(pytestconfig, cuda_device):
    """Nine hidden layers of 128 have 256 KiB of them; eight of 64 have 64 KiB."""
    if pytestconfig.getoption("device") == "cuda":
        case = case_of("deepest", cuda_device, 33)
    else:  # compiled in a fourth of the time
        case = case_of("thinner", emulated(pytestconfig, max_shared_bytes=64 * 1024), 33)
    assert case.fused.fused.inference_shape.layout.streams
    assert case.fused.wide.layout.streams
    y, launches = case.launched(case.fused, case.inference)
    assert [name.startswith("fused_inference") for name in launches] == [True]
    assert_close(y, case.twin.inference(case.x, case.params), 16 * ROUNDING["float16"])
    (_, gradients), launches = case.launched(case.fused, case.train)
    assert_wide(launches)
    _, of_chain = case.train(case.engine(fused=False))
    assert_close(gradients, of_chain, 16 * ROUNDING["float16"])


@pytest.mark.parametrize(
    ("max_shared_bytes", "streams", "n_warps"),
    [(MOST_SHARED, (True, False), 8), (163 * 1024, (True, True), 8), (99 * 1024, (True, True), 3)],
)
def test_what_streams(pytestconfig, max_shared_bytes, streams, n_warps):
    """OneBlob with 64 bins, five hidden layers of 128; on capabilities 9.0, 8.0 and 8.6."""
    device = emulated(pytestconfig, max_shared_bytes=max_shared_bytes)
    case = Case("bins", device, 1, cases=DEEP)
    inference, wide = case.fused.fused.inference_shape.layout, case.fused.wide
    assert (inference.streams, wide.layout.streams) == streams
    assert inference.n_warps == n_warps
    assert wide.can_train
    assert max(inference.shared_bytes, wide.layout.shared_bytes) <= max_shared_bytes
