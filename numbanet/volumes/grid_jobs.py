"""Kernels over all cells of an occupancy grid."""

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.threads import barrier, shared_array, thread_index, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO, device
from numbanet.storage.views import float_matrix, float_vector, uint32_vector
from numbanet.target import AbstractTarget
from numbanet.volumes.cells import CELLS, cell_of, coordinate
from numbanet.volumes.launch import Job, kernel_on

ALL = np.uint32(0xFFFFFFFF)
NOTHING, BIT = np.uint32(0), np.uint32(1)
THREADS = 1024  # of the block that computes a mean
MOST = np.float32(1e30)  # of a density that is kept


@ParallelKernel
def fill_on_host(n, bits):
    for i in prange(n):
        bits[i] = ALL


def fill_on_device(n: UInt, pbits: Address):
    i = thread_number()
    if i < n:
        uint32_vector(pbits, n)[i] = ALL


@device
def place_point(i, part, n_parts, resolution, frame, offsets, positions):
    level, x, y, z = cell_of(part + i * n_parts, resolution)
    positions[i, 0] = frame[0] + coordinate(x, offsets[3 * i], resolution, level) / frame[3]
    positions[i, 1] = frame[1] + coordinate(y, offsets[3 * i + 1], resolution, level) / frame[4]
    positions[i, 2] = frame[2] + coordinate(z, offsets[3 * i + 2], resolution, level) / frame[5]


@ParallelKernel
def place_on_host(n, part, n_parts, resolution, frame, offsets, positions):
    for i in prange(n):
        place_point(np.uint32(i), part, n_parts, resolution, frame, offsets, positions)


def place_on_device(
    n: UInt, part: UInt, n_parts: UInt, resolution: UInt, pframe: Address, poffsets: Address,
    ppositions: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        place_point(
            i, part, n_parts, resolution, float_vector(pframe, 6), float_vector(poffsets, 3 * n),
            float_matrix(ppositions, n, 3),
        )  # fmt: skip


@device
def merge_cell(i, part, n_parts, decay, found, densities):
    cell, density = part + i * n_parts, found[i]
    if not density < MOST:  # NaN is not empty
        density = MOST
    densities[cell] = max(decay * densities[cell], density)


@ParallelKernel
def merge_on_host(n, part, n_parts, decay, found, densities):
    for i in prange(n):
        merge_cell(np.uint32(i), part, n_parts, decay, found, densities)


def merge_on_device(
    n: UInt, part: UInt, n_parts: UInt, decay: Float, pfound: Address, pdensities: Address
):
    i = thread_number()
    if i < n:
        found, densities = float_vector(pfound, n), float_vector(pdensities, ALL)
        merge_cell(i, part, n_parts, decay, found, densities)


@device
def word_of_cells(i, densities, mean, threshold):
    least, word = min(mean[0], threshold), NOTHING
    for k in range(CELLS):
        if densities[i * CELLS + k] > least:
            word |= BIT << np.uint32(k)
    return word


@ParallelKernel
def bits_on_host(n, densities, mean, threshold, bits):
    for i in prange(n):
        bits[i] = word_of_cells(np.uint32(i), densities, mean, threshold)


def bits_on_device(n: UInt, pdensities: Address, pmean: Address, threshold: Float, pbits: Address):
    i = thread_number()
    if i < n:
        densities, mean = float_vector(pdensities, n * CELLS), float_vector(pmean, 1)
        uint32_vector(pbits, n)[i] = word_of_cells(i, densities, mean, threshold)


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


fill_bits = Job(fill_on_host, fill_on_device)
place_points = Job(place_on_host, place_on_device)
merge = Job(merge_on_host, merge_on_device)
set_bits = Job(bits_on_host, bits_on_device)


def mean_of(target: AbstractTarget, values, mean) -> None:
    """Write the mean of some numbers to an array [1]."""
    if isinstance(target, CpuTarget):
        mean[0] = values.mean(dtype=np.float64)
        return
    with target.device.lock:
        run = kernel_on(target.device, mean_in_block, THREADS)
        run(1, values.shape[0], values.address, mean.address)
