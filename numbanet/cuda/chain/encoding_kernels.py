"""CUDA kernels of an encoding: one thread per sample, one partition per blockIdx.y.

Features are read and written with two strides, so that one kernel serves rows of samples (the
public interface) and rows of features (what the networks read: neighbouring threads then touch
neighbouring numbers). `n_columns` is the width of a row of inputs, of which x starts at its first
dimension; addresses point at the encoding's own first input, feature and parameter.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.cuda.launch.rows import add_to_row, read_features, read_row, write_features
from numbanet.cuda.launch.threads import block_index_y, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import device, local_array, select
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.encodings.parts import Part
from numbanet.storage.halves import TO_FLOATS
from numbanet.storage.views import VECTORS, float_vector, uint32_vector

IN_TURN = ("in turn",)


@cache
def forward_kernel(part: Part, n_columns: int, params_storage: str, features_storage: str):
    """(x, n, params, y, sample_step, feature_step): write the features of a part.

    They are NaN where one of the n_columns inputs of the whole encoding is not finite. x is all of
    these.
    """
    encoding, first_dim = part.encoding, part.first_dim
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    partition_forward, params_vector = encoding.partition_forward, VECTORS[params_storage]
    read, write = read_row(n_columns), write_features(width, features_storage)
    check = zero_or_nan(n_columns)

    def encoding_forward(
        px: Address, n: UInt, pparams: Address, py: Address, sample_step: UInt, feature_step: UInt,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        if i < n:
            x, y = local_array(n_columns), local_array(width)
            read(px, i * n_columns, x)
            mine = x[first_dim : first_dim + n_dims]
            partition_forward(partition, mine, params_vector(pparams, n_params), y)
            spoil(check(x), y)
            start = i * sample_step + partition * width * feature_step
            write(py, start, feature_step, y)

    encoding_forward.__qualname__ = f"{name_of(encoding)}_forward"
    return encoding_forward


class KeptFeatures(NamedTuple):
    """Features in pairs, as keep_words stores them; feature_step is the pitch of their rows."""

    precision: str
    first_column: int  # of the encoding's, among those kept


@cache
def read_kept(width: int, kept: KeptFeatures):
    """Device function (address, i, partition, pitch, features): features of sample i."""
    to_floats, first_column = TO_FLOATS[kept.precision], np.uint32(kept.first_column)

    @device
    def read_kept(address, i, partition, pitch, features):
        words = uint32_vector(address, pitch)
        for k in range(width):
            column = first_column + partition * width + k
            row = np.uint64(column >> np.uint32(1)) * np.uint64(pitch)
            low, high = to_floats(words[row + np.uint64(i)])
            features[k] = select((column & np.uint32(1)) != np.uint32(0), high, low)

    return read_kept


@cache
def read_scaled(encoding: AbstractEncoding, features: str | KeptFeatures):
    """Device function (i, partition, of_batch, factor, dl_dy): factor times the gradients."""
    width = encoding.partition_width
    if isinstance(features, KeptFeatures):
        read_pairs = read_kept(width, features)

        @device
        def read_scaled_pairs(i, partition, of_batch, factor, dl_dy):
            _, _, _, _, _, pdl_dy, _, pitch, _ = of_batch
            read_pairs(pdl_dy, i, partition, pitch, dl_dy)
            for k in range(width):
                dl_dy[k] *= factor

        return read_scaled_pairs
    read = read_features(width, features)

    @device
    def read_scaled(i, partition, of_batch, factor, dl_dy):
        _, _, _, _, _, pdl_dy, sample_step, feature_step, _ = of_batch
        start = i * sample_step + partition * width * feature_step
        read(pdl_dy, start, feature_step, dl_dy)
        for k in range(width):
            dl_dy[k] *= factor

    return read_scaled


@cache
def backward_sample(
    encoding: AbstractEncoding, params_storage: str, features_storage: str | KeptFeatures
):
    """Device function (i, partition, of_batch, factor, dl_dparams): add sample i's gradients.

    of_batch is (x, n_columns, first, n_all, params, dl_dy, two steps, 0); samples are numbers
    `first` ... of n_all. Adds factor times the gradient of the parameters.
    """
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    backward, params_vector = encoding.partition_backward_params, VECTORS[params_storage]
    read, read_dl_dy = read_row(n_dims), read_scaled(encoding, features_storage)

    @device
    def backward_sample(i, partition, of_batch, factor, dl_dparams):
        px, n_columns, first, n_all, pparams, _, _, _, _ = of_batch
        x, dl_dy = local_array(n_dims), local_array(width)
        read(px, i * n_columns, x)
        read_dl_dy(i, partition, of_batch, factor, dl_dy)
        params = params_vector(pparams, n_params)
        backward(partition, first + i, n_all, x, params, dl_dy, dl_dparams)

    return backward_sample


@cache
def backward_params_kernel(
    encoding: AbstractEncoding, storage: str, params_storage: str, features_storage: str
):
    """(x, n, n_columns, first, n_all, params, dl_dy, two steps, factor, dl_dparams)."""
    of_sample = backward_sample(encoding, params_storage, features_storage)
    gradients_vector, n_params = VECTORS[storage], encoding.n_params

    def encoding_backward_params(
        px: Address, n: UInt, n_columns: UInt, first: UInt, n_all: UInt, pparams: Address,
        pdl_dy: Address, sample_step: UInt, feature_step: UInt, factor: Float, pdl_dparams: Address,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        if i < n:
            steps = sample_step, feature_step
            of_batch = px, n_columns, first, n_all, pparams, pdl_dy, *steps, np.uint64(0)
            of_sample(i, partition, of_batch, factor, gradients_vector(pdl_dparams, n_params))

    encoding_backward_params.__qualname__ = f"{name_of(encoding)}_backward_params"
    return encoding_backward_params


@cache
def backward_input_kernel(encoding: AbstractEncoding, *more: str):
    """(x, n, n_columns, params, dl_dy, sample_step, feature_step, factor, dl_dx).

    Adds factor times the gradient of the inputs. IN_TURN may come before the storages of parameters
    and features: then a thread takes one partition after the other, and adds in this order.
    """
    *in_turn, params_storage, features_storage = more
    n_turns = len(encoding.partition_columns) if in_turn else 1
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    backward, params_vector = encoding.partition_backward_input, VECTORS[params_storage]
    read, read_dl_dy = read_row(n_dims), read_features(width, features_storage)
    add = add_to_row(n_dims)

    def encoding_backward_input(
        px: Address, n: UInt, n_columns: UInt, pparams: Address, pdl_dy: Address, sample_step: UInt,
        feature_step: UInt, factor: Float, pdl_dx: Address,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            x, dl_dx, dl_dy = local_array(n_dims), local_array(n_dims), local_array(width)
            read(px, i * n_columns, x)
            for turn in range(n_turns):
                partition = np.uint32(block_index_y() + np.uint32(turn))
                start = i * sample_step + partition * width * feature_step
                read_dl_dy(pdl_dy, start, feature_step, dl_dy)
                backward(partition, x, params_vector(pparams, n_params), dl_dy, dl_dx)
                add(pdl_dx, i * n_columns, dl_dx, factor)

    encoding_backward_input.__qualname__ = f"{name_of(encoding)}_backward_input"
    return encoding_backward_input


@cache
def double_backward_input_kernel(encoding: AbstractEncoding, *more: str):
    """(x, n, n_columns, params, dl_dy, two steps, factor, dl_ddx, dl_ddy, dl_dx).

    Writes dl_ddy and adds factor times what comes through backward_input to dl_dx. `more` is as for
    backward_input_kernel.
    """
    *in_turn, params_storage, features_storage = more
    n_turns = len(encoding.partition_columns) if in_turn else 1
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    backward, params_vector = encoding.partition_double_backward_input, VECTORS[params_storage]
    read, add = read_row(n_dims), add_to_row(n_dims)
    read_dl_dy = read_features(width, features_storage)
    write = write_features(width, features_storage)

    def encoding_double_backward_input(
        px: Address, n: UInt, n_columns: UInt, pparams: Address, pdl_dy: Address, sample_step: UInt,
        feature_step: UInt, factor: Float, pdl_ddx: Address, pdl_ddy: Address, pdl_dx: Address,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            x, dl_ddx, dl_dx = local_array(n_dims), local_array(n_dims), local_array(n_dims)
            dl_dy, dl_ddy = local_array(width), local_array(width)
            row = i * n_columns
            read(px, row, x)
            read(pdl_ddx, row, dl_ddx)
            for turn in range(n_turns):
                partition = np.uint32(block_index_y() + np.uint32(turn))
                start = i * sample_step + partition * width * feature_step
                read_dl_dy(pdl_dy, start, feature_step, dl_dy)
                params = params_vector(pparams, n_params)
                backward(partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx)
                write(pdl_ddy, start, feature_step, dl_ddy)
                add(pdl_dx, row, dl_dx, factor)

    encoding_double_backward_input.__qualname__ = f"{name_of(encoding)}_double_backward_input"
    return encoding_double_backward_input


@cache
def double_backward_sample(encoding: AbstractEncoding, params_storage: str, features_storage: str):
    """`backward_sample` for the gradient through backward_input; dl_ddx is last in of_batch."""
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    backward, params_vector = encoding.partition_double_backward_params, VECTORS[params_storage]
    read, read_dl_dy = read_row(n_dims), read_scaled(encoding, features_storage)

    @device
    def double_backward_sample(i, partition, of_batch, factor, dl_dparams):
        px, n_columns, _, _, pparams, _, _, _, pdl_ddx = of_batch
        x, dl_ddx, dl_dy = local_array(n_dims), local_array(n_dims), local_array(width)
        row = i * n_columns
        read(px, row, x)
        read(pdl_ddx, row, dl_ddx)
        read_dl_dy(i, partition, of_batch, factor, dl_dy)
        backward(partition, x, params_vector(pparams, n_params), dl_dy, dl_ddx, dl_dparams)

    return double_backward_sample


@cache
def double_backward_params_kernel(
    encoding: AbstractEncoding, params_storage: str, features_storage: str
):
    """(x, n, n_columns, params, dl_dy, two steps, factor, dl_ddx, dl_dparams): float32."""
    of_sample = double_backward_sample(encoding, params_storage, features_storage)
    n_params = encoding.n_params

    def encoding_double_backward_params(
        px: Address, n: UInt, n_columns: UInt, pparams: Address, pdl_dy: Address, sample_step: UInt,
        feature_step: UInt, factor: Float, pdl_ddx: Address, pdl_dparams: Address,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        if i < n:
            steps, none = (sample_step, feature_step), np.uint32(0)
            of_batch = px, n_columns, none, n, pparams, pdl_dy, *steps, pdl_ddx
            of_sample(i, partition, of_batch, factor, float_vector(pdl_dparams, n_params))

    encoding_double_backward_params.__qualname__ = f"{name_of(encoding)}_double_backward_params"
    return encoding_double_backward_params


def name_of(encoding: AbstractEncoding) -> str:
    return type(encoding).__name__
