"""Features of the fused kernels as pairs of halves, against those in floats."""

import functools

import laws
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from emulator.ptx import EmulatedMemory, Module
from numbanet.cuda.block.samples import encode_in_words
from numbanet.cuda.launch.threads import thread_index
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.device import local_array, uint32_view
from numbanet.storage.views import float_vector, uint32_vector

WARP = 32
EXTREMES = (0, -0.0, 0.5, -1, 0.5 + 2**-24, 2048.25, 2.0**20, 2.0**24 - 1, -3.4e38, 1e-40)


@functools.cache
def compiled(encoding):
    """Module and name of a kernel by which each lane writes the words of its sample."""
    to_words = encode_in_words(encoding, "float16")
    n_dims, n_words = encoding.n_dims, encoding.n_outputs // 2

    def write_words(pinputs, pwords):
        i, x, words = thread_index(), local_array(n_dims), uint32_view(local_array(n_words))
        inputs = float_vector(pinputs, WARP * n_dims)
        for k in range(n_dims):
            x[k] = inputs[i * n_dims + k]
        to_words(x, pinputs, words)
        written = uint32_vector(pwords, WARP * n_words)
        for k in range(n_words):
            written[i * n_words + k] = words[k]

    ptx = compile_ptx(write_words, ("uint64", "uint64"), (9, 0), block=WARP)
    return Module(ptx.text, EmulatedMemory()), ptx.name


def pairs(encoding, x):
    """Features in halves, of a batch of 32."""
    module, name = compiled(encoding)
    memory, n_bytes = module.memory, 2 * WARP * encoding.n_outputs
    inputs, words = memory.allocate(x.nbytes), memory.allocate(n_bytes)
    memory.view(inputs, np.float32, x.size)[:] = x.ravel()
    module.launch(name, 1, WARP, (inputs, words))
    found = memory.view(words, np.float16, n_bytes // 2).reshape(WARP, -1).copy()
    memory.free(inputs)
    memory.free(words)
    return found


def floats(encoding, x):
    rows = np.empty((WARP, encoding.n_outputs), np.float32)
    for row, each in zip(rows, x, strict=True):
        encoding.forward(each, np.zeros(0, np.float32), row)
    return rows


MOST_DOUBLED = 36 * 6e-7  # error where an angle was doubled three times, and its length changes


@pytest.mark.parametrize(("n_dims", "n_frequencies"), [(3, 10), (1, 32)])
def test_frequency(n_dims, n_frequencies):
    encoding = laws.create(
        "encoding", "Frequency", {"n_frequencies": n_frequencies}, {"n_dims": n_dims}
    )
    encoding = encoding.padded(-(-(encoding.n_outputs + 1) // 16) * 16)
    x = np.random.default_rng(0).standard_normal((WARP, n_dims)).astype(np.float32) * 4
    x[: len(EXTREMES)] = np.array(EXTREMES, np.float32)[:, None]
    np.testing.assert_allclose(
        pairs(encoding, x), floats(encoding, x), rtol=2**-11, atol=MOST_DOUBLED
    )
    x[::2] = np.array([np.nan, np.inf, -np.inf, 1] * 4)[:, None]
    found = pairs(encoding, x)
    assert np.isnan(found[::2, 0]).reshape(4, 4)[:, :3].all()
    assert np.isfinite(found[:, 2:]).all()
    np.testing.assert_allclose(
        found[1::2], floats(encoding, x)[1::2], rtol=2**-11, atol=MOST_DOUBLED
    )
