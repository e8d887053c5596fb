"""Inference that rounds parameters in float32 itself: the same bits as with halves."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_fused import Case
from test_fused_weights import streamed

from numbanet.cuda.engine import CudaEngine
from numbanet.cuda.memory import arrays
from numbanet.storage.views import DTYPES

FLOAT = np.dtype(np.float32)


def case_of(name, device):
    return Case(name, device, 65, n_candidates=20)


@pytest.mark.parametrize(
    "name", ["hash", "per_axis", "wide_entries", "entries_of_4", "odd_place", "identity"]
)
def test_it_computes_the_same(cuda_device, name):
    case = case_of(name, cuda_device)
    dtype = np.dtype(DTYPES[case.precision])
    noise = np.random.default_rng(2).uniform(0.99, 1.01, case.params.size)
    case.stored.from_host((case.params * noise).astype(np.float32))
    x, params = case.target.from_host(case.x), case.stored.current()
    expected = arrays.empty((len(case.x), case.n_output_dims), dtype, cuda_device)
    case.fused.inference(x, params, expected)
    found = arrays.empty(expected.shape, dtype, cuda_device)
    kernel, n_blocks, rows = case.fused.reading_float32(len(case.x), dtype)
    own, n_matrix_params = case.stored.own, case.model.network.n_params
    encoding = own.address + n_matrix_params * FLOAT.itemsize
    kernel(n_blocks, x.address, len(case.x), own.address, encoding, found.address, 0, rows)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["dense_3d", "permutohedral", "composite"])
def test_entries_that_are_not_in_pairs_are_rounded_before(cuda_device, name):
    assert case_of(name, cuda_device).fused.reading_float32(65, FLOAT) is None


def test_weights_that_do_not_fit_are_rounded_before(cuda_device):
    case = case_of("hash", cuda_device)
    assert streamed(case.engine()).reading_float32(65, FLOAT) is None


def test_large_batches_have_features_looked_up_before(cuda_device):
    case = case_of("hash", cuda_device)
    fewest = case.fused.tables.fewest_inferred
    served = [case.fused.reading_float32(n, FLOAT) is not None for n in (fewest - 1, fewest)]
    assert served == [True, False]


def test_float32_models_have_no_such_kernel(cuda_device):
    case = case_of("hash", cuda_device)
    assert CudaEngine(cuda_device, case.model, "float32").reading_float32(65, FLOAT) is None
