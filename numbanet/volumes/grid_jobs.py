"""Kernels over all cells of an occupancy grid."""

import numpy as np

from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.threads import barrier, shared_array, thread_index
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO
from numbanet.storage.views import float_vector
from numbanet.target import AbstractTarget
from numbanet.volumes.cells import CELLS, cell_of, coordinate
from numbanet.volumes.launch import Floats, Job, Rows, UInts, kernel_on

ALL = np.uint32(0xFFFFFFFF)
NOTHING, BIT = np.uint32(0), np.uint32(1)
THREADS = 1024  # of the block that computes a mean
MOST = np.float32(1e30)  # of a density that is kept


@Job
def fill_bits(i, bits: UInts):
    bits[i] = ALL


@Job
def place_points(
    i, part: UInt, n_parts: UInt, resolution: UInt, frame: Floats, offsets: Floats,
    positions: Rows(3),
):  # fmt: skip
    level, x, y, z = cell_of(part + i * n_parts, resolution)
    positions[i, 0] = frame[0] + coordinate(x, offsets[3 * i], resolution, level) / frame[3]
    positions[i, 1] = frame[1] + coordinate(y, offsets[3 * i + 1], resolution, level) / frame[4]
    positions[i, 2] = frame[2] + coordinate(z, offsets[3 * i + 2], resolution, level) / frame[5]


@Job
def merge(i, part: UInt, n_parts: UInt, decay: Float, found: Floats, densities: Floats):
    cell, density = part + i * n_parts, found[i]
    if not density < MOST:  # NaN is not empty
        density = MOST
    densities[cell] = max(decay * densities[cell], density)


@Job
def set_bits(i, densities: Floats, mean: Floats, threshold: Float, bits: UInts):
    least, word = min(mean[0], threshold), NOTHING
    for k in range(CELLS):
        if densities[i * CELLS + k] > least:
            word |= BIT << np.uint32(k)
    bits[i] = word


def mean_in_block(n: UInt, pvalues: Address, pmean: Address):  # in one order in every run
    values, sums = float_vector(pvalues, n), shared_array(THREADS)
    i, total = thread_index(), ZERO
    while i < n:
        total += values[i] / np.float32(n)
        i += THREADS
    sums[thread_index()] = total
    barrier()
    half = np.uint32(THREADS // 2)
    while half > 0:
        if thread_index() < half:
            sums[thread_index()] += sums[thread_index() + half]
        barrier()
        half >>= 1
    if thread_index() == 0:
        float_vector(pmean, 1)[0] = sums[0]


def mean_of(target: AbstractTarget, values, mean) -> None:
    """Write the mean of some numbers to an array [1]."""
    if isinstance(target, CpuTarget):
        mean[0] = values.mean(dtype=np.float64)
        return
    with target.device.lock:
        run = kernel_on(target.device, mean_in_block, THREADS)
        run(1, values.shape[0], values.address, mean.address)
