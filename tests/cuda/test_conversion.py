"""Parameters in the precision that kernels read: four at a time, from any place on."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.memory.arrays import DeviceArray, zeros
from numbanet.cuda.memory.parameters import Converter


@pytest.mark.parametrize("boundary", [0, 1, 6, 7])
def test_every_number_is_converted_and_nothing_else(cuda_device, boundary):
    convert = Converter(cuda_device, "float16", boundary)
    for n in (1, 2, 5, 8, 515):
        x = np.random.default_rng(n).normal(size=n).astype(np.float32)
        source, to = zeros((n + 8,), np.float32, cuda_device), zeros((n + 16,), "f2", cuda_device)
        shift, shift_to = -boundary % 4, -boundary % 8
        at = DeviceArray((n,), source.dtype, source.address + 4 * shift, source, cuda_device)
        cuda_device.copy_to_device(at.address, x)
        convert(at, DeviceArray((n,), to.dtype, to.address + 2 * shift_to, to, cuda_device))
        expected = np.zeros(n + 16, np.float16)
        expected[shift_to : shift_to + n] = x
        np.testing.assert_array_equal(to.numpy(), expected)
