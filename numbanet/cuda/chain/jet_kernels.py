"""CUDA kernels on jets: encode samples, scatter gradients, activate, and write the outputs.

All is float32. Features lie in rows, each of which holds the columns of the jets one after the
other: column c of sample i, of n, at c * n + i, so that products take them for samples. One thread
per sample, where nothing else is said.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.chain.encoding_kernels import name_of
from numbanet.cuda.launch.rows import read_features, read_row, write_features
from numbanet.cuda.launch.threads import block_index_y, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO, device, local_array, unrolled
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.encodings.parts import Part
from numbanet.jets import Jet, activate_jet, activate_jet_backward
from numbanet.storage.views import VECTORS, float_vector


def partials_of(part: Part, dims: tuple[int, ...], jet: Jet) -> tuple[tuple[int, int, int], ...]:
    """Jet.partials by the part's own inputs, which are some of the inputs `dims`."""
    return jet.partials_through(dims[part.first_dim : part.first_dim + part.encoding.n_dims])


@cache
def encode_kernel(part: Part, dims: tuple[int, ...], jet: Jet):
    """(x, n, params, y, pitch): write the jets of a part's features; x is a row of the inputs dims.

    They are NaN where one of these is not finite.
    """
    encoding, first_dim, partials = part.encoding, part.first_dim, partials_of(part, dims, jet)
    n_inputs = len(dims)
    n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
    add_partial, n_partials, n_columns = (
        encoding.partition_add_partial, len(partials), jet.n_columns,
    )  # fmt: skip
    read, write = read_row(n_inputs), write_features(width, "float32")
    check = zero_or_nan(n_inputs)

    @device
    def add(k, column, partition, x, params, y):
        of_column, a, b = partials[k]
        if of_column == column:
            add_partial(partition, x, params, a, b, y)

    @device
    def encode_column(column, x, mine, partition, params, place):
        address, start, n, pitch = place
        y = local_array(width)
        for f in range(width):
            y[f] = ZERO
        unrolled(n_partials, add, column, partition, mine, params, y)
        spoil(check(x), y)
        write(address, start + np.uint32(column) * n, pitch, y)

    def encode_jets(px: Address, n: UInt, pparams: Address, py: Address, pitch: UInt):
        i, partition = thread_number(), block_index_y()
        if i < n:
            x = local_array(n_inputs)
            read(px, i * n_inputs, x)
            mine = x[first_dim : first_dim + n_dims]
            place = py, partition * width * pitch + i, n, pitch
            params = float_vector(pparams, n_params)
            unrolled(n_columns, encode_column, x, mine, partition, params, place)

    encode_jets.__qualname__ = f"{name_of(encoding)}_encode_jets"
    return encode_jets


@cache
def jet_sample(part: Part, dims: tuple[int, ...], jet: Jet) -> Callable:
    """Factory of `sample` for integer_sums.py: device functions of (encoding, two storages).

    These are (i, partition, of_batch, factor, dl_dparams), with of_batch as there; n_all counts the
    samples of the launch.
    """
    partials = partials_of(part, dims, jet)

    def sample(encoding: AbstractEncoding, params_storage: str, features_storage: str):
        n_dims, width, n_params = encoding.n_dims, encoding.partition_width, encoding.n_params
        backward, n_partials = encoding.partition_partial_backward_params, len(partials)
        read, read_dl_dy = read_row(n_dims), read_features(width, features_storage)
        params_vector = VECTORS[params_storage]

        @device
        def scatter(k, partition, x, params, place, factor, dl_dparams):
            (address, start, n, pitch), (column, a, b) = place, partials[k]
            dl_dy = local_array(width)
            read_dl_dy(address, start + np.uint32(column) * n, pitch, dl_dy)
            for f in range(width):
                dl_dy[f] *= factor
            backward(partition, x, params, a, b, dl_dy, dl_dparams)

        @device
        def jet_sample(i, partition, of_batch, factor, dl_dparams):
            px, n_columns, _, n, pparams, pdl_dy, _, pitch, _ = of_batch
            x = local_array(n_dims)
            read(px, i * n_columns, x)
            place = pdl_dy, partition * width * pitch + i, n, pitch
            params = params_vector(pparams, n_params)
            unrolled(n_partials, scatter, partition, x, params, place, factor, dl_dparams)

        return jet_sample

    return sample


@cache
def scatter_kernel(part: Part, dims: tuple[int, ...], jet: Jet):
    """(x, n, n_columns, params, dl_dy, pitch, dl_dparams): add the gradient of the parameters."""
    of_sample = jet_sample(part, dims, jet)(part.encoding, "float32", "float32")
    n_params = part.encoding.n_params

    def scatter_jets(
        px: Address, n: UInt, n_columns: UInt, pparams: Address, pdl_dy: Address, pitch: UInt,
        pdl_dparams: Address,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        if i < n:
            one, none = np.uint32(1), np.uint64(0)
            of_batch = px, n_columns, np.uint32(0), n, pparams, pdl_dy, one, pitch, none
            gradients = float_vector(pdl_dparams, n_params)
            of_sample(i, partition, of_batch, np.float32(1.0), gradients)

    scatter_jets.__qualname__ = f"{name_of(part.encoding)}_scatter_jets"
    return scatter_jets


def constant_kernel(py: Address, value: Float, n_rows: UInt, n: UInt, pitch: UInt):
    """(y, value, n_rows, n, pitch): rows of constant features; a thread for each number."""
    k = thread_number()
    if k < n_rows * pitch:
        column = k % pitch
        float_vector(py, n)[k] = value if column < n else ZERO


@cache
def columns(n_columns: int):
    """Device functions (address, start, n, jet) that load and store the columns of a jet."""

    @device
    def load_column(c, numbers, start, n, jet):
        jet[c] = numbers[np.uint32(start + np.uint32(c) * n)]

    @device
    def store_column(c, numbers, start, n, jet):
        numbers[np.uint32(start + np.uint32(c) * n)] = jet[c]

    @device
    def load(address, start, n, jet):
        unrolled(n_columns, load_column, float_vector(address, n), start, n, jet)

    @device
    def store(address, start, n, jet):
        unrolled(n_columns, store_column, float_vector(address, n), start, n, jet)

    return load, store


@cache
def activate_kernel(activation: Activation, jet: Jet):
    """(before, after, n_rows, n, pitch): the activation; a thread for each jet."""
    activate, n_columns, (load, store) = (
        activate_jet(activation, jet), jet.n_columns, columns(jet.n_columns),
    )  # fmt: skip

    def activate_jets(pbefore: Address, pafter: Address, n_rows: UInt, n: UInt, pitch: UInt):
        k = thread_number()
        if k < n_rows * n:
            start = k // n * pitch + k % n
            z, y = local_array(n_columns), local_array(n_columns)
            load(pbefore, start, n, z)
            activate(0, z, y)
            store(pafter, start, n, y)

    activate_jets.__qualname__ = f"activate_jets_{activation.name}"
    return activate_jets


@cache
def activate_backward_kernel(activation: Activation, jet: Jet):
    """(gradients, before, n_rows, n, pitch): the chain rule in place; a thread for each jet."""
    forward, from_input = activation.forward, activation.from_input
    backward, n_columns, (load, store) = (
        activate_jet_backward(activation, jet), jet.n_columns, columns(jet.n_columns),
    )  # fmt: skip

    def activate_jets_backward(
        pgradients: Address, pbefore: Address, n_rows: UInt, n: UInt, pitch: UInt
    ):
        k = thread_number()
        if k < n_rows * n:
            start = k // n * pitch + k % n
            z, dl_dy, dl_dz = local_array(n_columns), local_array(n_columns), local_array(n_columns)
            load(pbefore, start, n, z)
            load(pgradients, start, n, dl_dy)
            backward(0, z[0] if from_input else forward(z[0]), z, dl_dy, dl_dz)
            store(pgradients, start, n, dl_dz)

    activate_jets_backward.__qualname__ = f"activate_jets_backward_{activation.name}"
    return activate_jets_backward


def columns_of_seconds(jet: Jet) -> tuple[int, ...]:
    """Column of each second derivative, and a 0, so that the tuple is never empty."""
    return (*jet.second_columns, 0)


@cache
def outputs_kernel(n_outputs: int, jet: Jet):
    """(y, n, pitch, values, firsts, seconds): outputs as arrays of users; a thread for each."""
    n_dims, n_seconds, seconds_of = jet.n_dims, len(jet.second_columns), columns_of_seconds(jet)

    @device
    def write_second(j, y, start, n, seconds, k):
        seconds[k * n_seconds + j] = y[np.uint32(start + np.uint32(seconds_of[j]) * n)]

    def jets_in_rows(
        py: Address, n: UInt, pitch: UInt, pvalues: Address, pfirsts: Address, pseconds: Address
    ):
        k = thread_number()
        if k < n * n_outputs:
            y, start = float_vector(py, n), (k % n_outputs) * pitch + k // n_outputs
            float_vector(pvalues, n)[k] = y[start]
            firsts, seconds = float_vector(pfirsts, n), float_vector(pseconds, n)
            for d in range(n_dims):
                firsts[k * n_dims + d] = y[np.uint32(start + np.uint32(1 + d) * n)]
            if n_seconds > 0:
                unrolled(n_seconds, write_second, y, start, n, seconds, k)

    return jets_in_rows


@cache
def gradients_kernel(n_outputs: int, jet: Jet):
    """(dl_dvalues, dl_dfirsts, dl_dseconds, n, pitch, dl_dy): the reverse; 0 counts as zeros."""
    n_dims, n_seconds, seconds_of = jet.n_dims, len(jet.second_columns), columns_of_seconds(jet)
    n_columns = jet.n_columns
    _, store = columns(n_columns)
    none = np.uint64(0)

    @device
    def add_second(j, seconds, k, gradient):
        gradient[seconds_of[j]] += seconds[k * n_seconds + j]

    def gradients_of_jets(
        pvalues: Address, pfirsts: Address, pseconds: Address, n: UInt, pitch: UInt, pdl_dy: Address
    ):
        k = thread_number()
        if k < n * n_outputs:
            gradient = local_array(n_columns)
            for c in range(n_columns):
                gradient[c] = ZERO
            if pvalues != none:
                gradient[0] = float_vector(pvalues, n)[k]
            if pfirsts != none:
                for d in range(n_dims):
                    gradient[1 + d] = float_vector(pfirsts, n)[k * n_dims + d]
            if n_seconds > 0 and pseconds != none:
                unrolled(n_seconds, add_second, float_vector(pseconds, n), k, gradient)
            start = (k % n_outputs) * pitch + k // n_outputs
            store(pdl_dy, start, n, gradient)

    return gradients_of_jets
