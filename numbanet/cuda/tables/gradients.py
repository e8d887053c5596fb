"""Gradients of the tables of a model's grids from those of its features, on a CUDA device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.rooms import Rooms
from numbanet.cuda.memory.workspace import Kept
from numbanet.cuda.tables import largest, records, resident, sums
from numbanet.cuda.tables.plan import TablePlan
from numbanet.encodings.base import AbstractEncoding
from numbanet.networks.base import next_multiple

# Additions to memory that are saved, from which on this pays: so many, and more where bins, which
# are written as a whole, have many parameters. Measured: docs/design/tables.md.
FEWEST_REDUCTIONS, REDUCTIONS_PER_PARAM = 1 << 22, 0.6
RECORD_BYTES = 512 << 20  # of memory for records, at most


@dataclass(frozen=True)
class Pass:
    """What the kernels of one pass have in common: addresses, and numbers."""

    inputs: int
    n: int
    words: int  # gradients of features, pairs of halves
    pitch: int  # words of a row
    largest: int
    second: int  # of the grid: levels whose records have a second round
    gradients: int  # of the grid
    factor: float
    adds: bool  # to what is there
    noted: int  # where large gradients are noted


class TableGradients:
    """Queues the kernels that add up the gradients of one grid.

    Args:
        device: a CudaDevice, or anything with its methods.
        plan: how the work is divided.
        n_columns: of a row of inputs.
        first_word: pair of features that is the first one of the words given.
        precision: of these.
        rooms: memory.
    """

    def __init__(
        self, device: Any, plan: TablePlan, n_columns: int, first_word: int, precision: str,
        rooms: Rooms,
    ):  # fmt: skip
        self._device, self.plan = device, plan
        self._n_columns, self._first_word = n_columns, first_word
        self._options, self._rooms = (n_columns, first_word, precision), rooms
        self._kernels = {}

    def _kernel(self, make: Callable, options, block: int, shared_bytes: int = 0) -> Kernel:
        if make not in self._kernels:
            function = make(self.plan, *options)
            self._kernels[make] = Kernel(self._device, function, block, shared_bytes)
        return self._kernels[make]

    def __call__(self, this: Pass) -> None:
        """Write, or add, the gradients of the grid's parameters."""
        if self.plan.residents:
            self._add_up_residents(this)
        if self.plan.binned:
            self._add_up_bins(this)

    def _add_up_residents(self, this: Pass) -> None:
        plan = self.plan
        partial = self._rooms("residents", 4 * plan.n_slices * plan.n_resident_sums)
        n_threads, bytes_ = resident.N_THREADS, plan.resident_bytes
        kernel = self._kernel(resident.resident_kernel, self._options, n_threads, bytes_)
        kernel(
            (plan.n_slices, len(plan.residents)),
            *(this.inputs, this.n, 0, this.words, this.pitch, this.largest, partial),
        )
        n_threads = resident.COLLECT_THREADS
        collect = self._kernel(resident.collect_residents_kernel, (), n_threads)
        most = plan.n_features * max(job.size for job in plan.residents)
        grid = -(-most // n_threads), len({job.level for job in plan.residents})
        collect(grid, partial, this.gradients, this.factor, int(this.adds), this.noted)

    @cached_property
    def _most_areas(self) -> int:
        of_area = 2 * 8 * records.ROUND * len(self.plan.binned)
        return max(min(sums.MOST_AREAS, RECORD_BYTES // of_area), 1)

    def _add_up_bins(self, this: Pass) -> None:
        of_block = records.block_samples(self.plan)
        n_jobs, slab = len(self.plan.binned), self._most_areas * of_block
        write = self._kernel(
            *(records.records_kernel, self._options),
            *(records.N_THREADS, records.SHARED_BYTES),
        )
        add_up = self._kernel(
            *(sums.sums_kernel, (self._first_word,), sums.N_THREADS),
            sums.shared_bytes(self._most_areas),
        )
        partial = self._rooms("bins", 8 * sums.partial_places(self.plan)[-1])
        grid = max(job.n_bins * job.n_slices for job in self.plan.binned), n_jobs
        for first in range(0, this.n, slab):
            n = min(slab, this.n - first)
            n_areas = -(-n // of_block)
            places = self._rooms("records", 2 * 8 * records.ROUND * n_areas * n_jobs)
            offsets = self._rooms("offsets", 2 * 4 * self.plan.n_offsets * n_areas * n_jobs)
            x, words = this.inputs + 4 * first * self._n_columns, this.words + 4 * first
            write(
                (n_areas, n_jobs),
                *(x, n, words, this.pitch, this.largest, places, offsets, this.second),
            )
            rest = this.factor, int(this.adds or first > 0), this.noted
            add_up(
                grid,
                *(places, offsets, n_areas, this.second, this.largest, this.gradients, partial),
                *rest,
            )
            self._collect_bins(partial, this.gradients, rest)

    def _collect_bins(self, partial: int, gradients: int, rest: tuple) -> None:
        jobs = [job for job in self.plan.binned if job.n_slices > 1]
        if jobs:
            n_threads = sums.COLLECT_THREADS
            collect = self._kernel(sums.collect_bins_kernel, (), n_threads)
            grid = -(-max(job.size for job in jobs) // n_threads), len(jobs)
            collect(grid, partial, gradients, *rest)


class ModelTables:
    """The tables of all grids of a model, whose features' gradients a fused kernel keeps.

    Args:
        device: a CudaDevice, or anything with its methods.
        encoding: of the model, padded.
        precision: of the features' gradients.
        max_shared_bytes: for the table of a level, instead of what the device has for a block.
    """

    def __init__(
        self,
        device: Any,
        encoding: AbstractEncoding,
        precision: str,
        max_shared_bytes: int | None = None,
    ):
        parts = [part for part in encoding.parts if part.encoding.n_params]
        first = min(part.first_column for part in parts) // 2
        stop = max(part.first_column + part.encoding.n_outputs for part in parts)
        self._kept = first, -(-stop // 2)  # pairs of features: the first one, and the end
        self._n_words = self._kept[1] - first
        self._device, self._precision = device, precision
        self._rooms = Rooms(device)
        most, n_dims = max_shared_bytes or device.max_shared_bytes, encoding.n_dims
        self.grids = [
            TableGradients(device, TablePlan(part, most), n_dims, first, precision, self._rooms)
            for part in parts
        ]

        plans = [each.plan for each in self.grids]
        n_params = sum(plan.n_binned_params for plan in plans)
        least = max(FEWEST_REDUCTIONS, REDUCTIONS_PER_PARAM * n_params)
        self.fewest = math.ceil(least / sum(plan.n_reductions for plan in plans))  # samples

    @property
    def generation(self) -> int:
        """Changes when memory has moved."""
        return self._rooms.generation

    def release(self) -> None:
        """Free the memory between the kernels; the next pass makes it anew."""
        self._rooms.release()

    def keep(self, n: int) -> Kept:
        """Which features' gradients of n samples are to be kept, and where."""
        n_bytes = 4 * next_multiple(n, largest.PIECE) * self._n_words
        return Kept(*self._kept, self._rooms("words", n_bytes))

    @cached_property
    def _largest(self) -> Kernel:
        function = largest.largest_kernel(self._precision)
        return Kernel(self._device, function, largest.BLOCK)

    @cached_property
    def noted(self) -> DeviceArray:
        """One float32: the size of the largest gradient of a pass, if it is large, or NaN."""
        return empty((1,), np.float32, self._device)

    def __call__(self, inputs: int, n: int, gradients: int, factor: float, adds: bool) -> None:
        """Add up what was kept; `gradients` is the address of the encoding's first one."""
        words, pitch = self.keep(n).address, next_multiple(n, largest.PIECE)
        n_zeroed = self._n_words + sum(len(each.plan.binned) for each in self.grids)
        of_largest = self._rooms("largest", 4 * n_zeroed)
        self._device.zero(of_largest, 4 * n_zeroed)
        self._device.zero(self.noted.address, 4)
        blocks = min(-(-n // (largest.BLOCK * largest.PIECE)), largest.BLOCKS)
        self._largest((blocks, self._n_words), words, n, pitch, of_largest)
        second = of_largest + 4 * self._n_words
        for grid in self.grids:
            to = gradients + 4 * grid.plan.part.first_param
            grid(
                Pass(
                    *(inputs, n, words, pitch, of_largest, second, to, factor, adds),
                    self.noted.address,
                )
            )
            second += 4 * len(grid.plan.binned)


def tables_of(device: Any, encoding: AbstractEncoding, precision: str) -> ModelTables | None:
    """The tables of a model, if all its parameters are those of grids that can be added up so."""
    parts = [part for part in encoding.parts if part.encoding.n_params]
    served = all(
        part.encoding.has_edges and TablePlan(part, device.max_shared_bytes).is_possible
        for part in parts
    )
    return ModelTables(device, encoding, precision) if parts and served else None
