"""Gradients of an encoding's parameters as sums of 64-bit integers, exact in any order.

A pass over the samples finds the largest number that is added anywhere, and how many a thread adds;
from both follows a unit, a power of two, in which no sum can overflow. A second pass adds to the
nearest integers, with at least 31 bits for the largest number: more than float32 sums keep.
Whatever an encoding does is measured, so nothing has to be known about it.
"""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np

from numbanet.cuda.chain.encoding_kernels import (
    KeptFeatures,
    name_of,
    read_scaled,
)
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import block_index_y, thread_index, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.rooms import Rooms
from numbanet.cuda.tables.units import (
    EXPONENT_OF_NAN,
    MAGNITUDE,
    bit_length,
    largest_exponent,
    largest_of_warp,
    power,
    raise_word,
    unit_of,
)
from numbanet.device import (
    ZERO,
    device,
    float_bits,
    local_array,
    uint32_view,
)
from numbanet.encodings.base import AbstractEncoding
from numbanet.storage.views import float_vector, int64_vector, uint32_vector

SUM_BITS = 62  # of a sum without its sign, less one for rounding
# The largest number counts as at least so much of the largest gradient of a feature, whose multiple
# by the unit is so within the range of float32.
LEAST = np.float32(2.0**-24)
LARGEST, N_ADDITIONS = np.uint32(0), np.uint32(1)  # indices of the measurements
MEASURED_BYTES = 8


@device
def bits_left(n, n_additions):  # for a number, if n threads add so many each
    return np.int32(SUM_BITS - np.int32(bit_length(n)) - np.int32(bit_length(n_additions)))


@cache
def measuring_kernel(sample: Callable, read: Callable, width: int, name: str):
    """Kernel that writes the measurements for integers_kernel, without sums."""

    def measure(
        px: Address, n: UInt, n_columns: UInt, first: UInt, n_all: UInt, pparams: Address,
        pdl_dy: Address, sample_step: UInt, feature_step: UInt, pdl_ddx: Address, factor: Float,
        pmeasured: Address,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        noted = uint32_view(local_array(2))
        noted[LARGEST], noted[N_ADDITIONS] = np.uint32(0), np.uint32(0)
        if i < n:
            steps = sample_step, feature_step
            of_batch = px, n_columns, first, n_all, pparams, pdl_dy, *steps, pdl_ddx
            sample(i, partition, of_batch, factor, noted)
            dl_dy = local_array(width)
            read(i, partition, of_batch, factor * LEAST, dl_dy)
            for k in range(width):
                bits = np.uint32(float_bits(dl_dy[k]) & MAGNITUDE)
                noted[LARGEST] = max(noted[LARGEST], bits)
        largest = largest_of_warp(noted[LARGEST])
        n_additions = largest_of_warp(noted[N_ADDITIONS])
        if np.uint32(thread_index() & np.uint32(31)) == np.uint32(0):
            raise_word(pmeasured, largest)
            raise_word(np.uint64(pmeasured + np.uint64(4)), n_additions)

    measure.__qualname__ = f"{name}_measure"
    return measure


@cache
def integers_kernel(sample: Callable, name: str, n_params: int):
    """(x, n, n_columns, first, n_all, params, dl_dy, two steps, dl_ddx, factor, measured, sums).

    Adds factor times the gradient of the parameters, in units of what was measured.
    """
    exponent_of = largest_exponent(1)

    def add_integers(
        px: Address, n: UInt, n_columns: UInt, first: UInt, n_all: UInt, pparams: Address,
        pdl_dy: Address, sample_step: UInt, feature_step: UInt, pdl_ddx: Address, factor: Float,
        pmeasured: Address, psums: Address,
    ):  # fmt: skip
        i, partition = thread_number(), block_index_y()
        if i < n:
            e = exponent_of(pmeasured, LARGEST)
            bits = bits_left(n, uint32_vector(pmeasured, 2)[N_ADDITIONS])
            scale = power(np.int32(bits - e)) if e < EXPONENT_OF_NAN else ZERO
            steps = sample_step, feature_step
            of_batch = px, n_columns, first, n_all, pparams, pdl_dy, *steps, pdl_ddx
            sample(i, partition, of_batch, factor * scale, int64_vector(psums, n_params))

    add_integers.__qualname__ = f"{name}_add_integers"
    return add_integers


def collect_integers(
    psums: Address, n_params: UInt, n: UInt, pmeasured: Address, pgradients: Address
):
    """(sums, n_params, n, measured, gradients): add n threads' sums to float32 gradients."""
    k = thread_number()
    if k < n_params:
        bits = bits_left(n, uint32_vector(pmeasured, 2)[N_ADDITIONS])
        unit = unit_of(exponent_of_largest(pmeasured, LARGEST), bits)
        gradients = float_vector(pgradients, n_params)
        gradients[k] += unit * np.float32(int64_vector(psums, n_params)[k])


exponent_of_largest = largest_exponent(1)


class IntegerSums:
    """Sums of the gradients of one encoding's parameters.

    Args:
        device: a CudaDevice, or anything with its methods.
        rooms: memory.
        sample: the additions of one sample: backward_sample, or double_backward_sample.
        encoding: the component, which has parameters.
        precision: of the parameters that the kernels read.
        features: storage type of the gradients of features.
    """

    def __init__(
        self, device: Any, rooms: Rooms, sample: Callable, encoding: AbstractEncoding,
        precision: str, features: str | KeptFeatures,
    ):  # fmt: skip
        self._device, self._rooms, self._n_params = device, rooms, encoding.n_params
        self._sample = sample(encoding, precision, features)
        self._n_partitions = len(encoding.partition_columns)
        self._read = read_scaled(encoding, features), encoding.partition_width
        self._name = name_of(encoding)

    @cached_property
    def _measure(self) -> Kernel:
        return Kernel(self._device, measuring_kernel(self._sample, *self._read, self._name))

    @cached_property
    def _add(self) -> Kernel:
        function = integers_kernel(self._sample, self._name, self._n_params)
        return Kernel(self._device, function)

    @cached_property
    def _collect(self) -> Kernel:
        return Kernel(self._device, collect_integers)

    def __call__(self, n: int, of_batch: tuple, gradients: int) -> None:
        """Add the gradients to float32 at an address.

        Args:
            of_batch: the kernels' arguments between n and the measurements.
        """
        n_bytes = MEASURED_BYTES + 8 * self._n_params
        measured = self._rooms("integers", n_bytes)
        sums = measured + MEASURED_BYTES
        self._device.zero(measured, n_bytes)
        grid, (x, *others) = (-(-n // BLOCK), self._n_partitions), of_batch
        self._measure(grid, x, n, *others, measured)
        self._add(grid, x, n, *others, measured, sums)
        self._collect.over(self._n_params, sums, self._n_params, n, measured, gradients)
