"""CPU kernels for an encoding by itself: forward, backward and double backward.

`encoding` is a kernel_key, and `numbers` are those of the encoding that it stands for.
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import spoil_rows
from numbanet.encodings.parts import with_numbers

ROWS = 1024


@cache
def forward_kernel(encoding: AbstractEncoding) -> ParallelKernel:
    """(xs, params, numbers, ys): write the features."""
    forward_rows = encoding.forward_rows
    spoil = spoil_rows(
        encoding.n_dims,
        tuple((first, first + part.n_outputs) for part, _, first, _ in encoding.parts),
    )

    params_of = with_numbers(encoding.reads_numbers)

    def encode(xs, params, numbers, ys):
        n = xs.shape[0]
        for group in prange((n + ROWS - 1) // ROWS):
            first, last = group * ROWS, min(n, (group + 1) * ROWS)
            forward_rows(xs, first, last, params_of(params, numbers), ys, first, 0)
            spoil(xs, first, last, ys, first)

    return ParallelKernel(encode)


@cache
def backward_params_kernel(encoding: AbstractEncoding) -> ParallelKernel:
    """(xs, params, numbers, dl_dys, dl_dparams): add the gradient of the parameters."""
    backward_params_rows, columns = encoding.backward_params_rows, encoding.partition_columns
    n_partitions, params_of = len(columns), with_numbers(encoding.reads_numbers)

    def encode_backward_params(xs, params, numbers, dl_dys, dl_dparams):
        for partition in prange(n_partitions):
            start, stop = columns[partition]
            features = dl_dys[:, start:stop]
            own_params = params_of(params, numbers)
            backward_params_rows(partition, xs, own_params, features, dl_dparams)

    return ParallelKernel(encode_backward_params)


@cache
def backward_input_kernel(encoding: AbstractEncoding) -> ParallelKernel:
    """(xs, params, numbers, dl_dys, dl_dxs): write the gradient of the inputs."""
    backward_input_rows = encoding.backward_input_rows
    params_of = with_numbers(encoding.reads_numbers)

    def encode_backward_input(xs, params, numbers, dl_dys, dl_dxs):
        n = xs.shape[0]
        for group in prange((n + ROWS - 1) // ROWS):
            first, last = group * ROWS, min(n, (group + 1) * ROWS)
            own_params = params_of(params, numbers)
            backward_input_rows(xs, first, last, own_params, dl_dys, dl_dxs)

    return ParallelKernel(encode_backward_input)


@cache
def double_backward_input_kernel(encoding: AbstractEncoding) -> ParallelKernel:
    """(xs, params, numbers, dl_dys, dl_ddxs, dl_ddys, dl_dxs): write dl_ddys and dl_dxs."""
    double_backward_input = encoding.double_backward_input
    params_of = with_numbers(encoding.reads_numbers)

    def encode_double_backward_input(xs, params, numbers, dl_dys, dl_ddxs, dl_ddys, dl_dxs):
        for i in prange(xs.shape[0]):
            u = np.uintp(i)  # an unsigned index is not tested for counting from the end
            own_params = params_of(params, numbers)
            double_backward_input(xs[u], own_params, dl_dys[u], dl_ddxs[u], dl_ddys[u], dl_dxs[u])

    return ParallelKernel(encode_double_backward_input)


@cache
def double_backward_params_kernel(encoding: AbstractEncoding) -> ParallelKernel:
    """(xs, params, numbers, dl_dys, dl_ddxs, dl_dparams): add the gradient of backward_input."""
    backward_rows, columns = encoding.double_backward_params_rows, encoding.partition_columns
    n_partitions, params_of = len(columns), with_numbers(encoding.reads_numbers)

    def encode_double_backward_params(xs, params, numbers, dl_dys, dl_ddxs, dl_dparams):
        for partition in prange(n_partitions):
            start, stop = columns[partition]
            features = dl_dys[:, start:stop]
            own_params = params_of(params, numbers)
            backward_rows(partition, xs, own_params, features, dl_ddxs, dl_dparams)

    return ParallelKernel(encode_double_backward_params)
