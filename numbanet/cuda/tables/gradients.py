"""Gradients of the tables of a model's grids from those of its features, on a CUDA device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from numbanet.cuda.block.samples import in_pairs_of
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.rooms import Rooms
from numbanet.cuda.memory.workspace import Kept
from numbanet.cuda.tables import features, records, resident, sorting, sums
from numbanet.cuda.tables.features import FeaturePlan
from numbanet.cuda.tables.plan import TablePlan
from numbanet.encodings.base import AbstractEncoding
from numbanet.networks.base import next_multiple

# Additions to memory that are saved, from which on this pays. Measured: docs/design/tables.md.
FEWEST_REDUCTIONS = 3 << 19
PIECE = 4  # words of a row, all of which are padded
RECORD_BYTES = 512 << 20  # of memory for records, at most
# Samples from which on it pays to look features up in shared memory, most of them or some: in
# training, and in inference.
FEWEST_MOST_GIVEN, FEWEST_GIVEN, NEVER = 1 << 16, 1 << 18, 1 << 62
FEWEST_MOST_INFERRED, FEWEST_INFERRED = 1 << 15, 1 << 16
MOST_FORESEEN = 1 << 30  # samples of float16, whose gradients, below 2^9, have usual sums


@dataclass(frozen=True)
class Pass:
    """Arguments that the kernels of one pass share: addresses, and numbers."""

    inputs: int
    n: int
    words: int  # gradients of features, pairs of halves
    pitch: int  # words of a row
    largest: int
    second: int  # of the grid: levels whose records have a second round
    gradients: int  # of the grid
    factor: float
    adds: bool  # to the gradients, instead of writing them
    noted: int  # where large gradients are noted


class TableGradients:
    """Kernels that add up the gradients of one grid.

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

    def _kernel(self, make: Callable, options, block: int, *sizes: int) -> Kernel:
        """Kernel for a size of shared memory per block, and a limit of registers per thread."""
        if make not in self._kernels:
            function = make(self.plan, *options)
            self._kernels[make] = Kernel(self._device, function, block, *sizes)
        return self._kernels[make]

    def __call__(self, this: Pass) -> None:
        """Write or add the gradients of the grid's parameters."""
        works = [
            partial(add_up, this)
            for add_up, jobs in (
                (self._add_up_bins, self.plan.binned),
                (self._add_up_residents, self.plan.residents),
            )
            if jobs
        ]
        self._device.in_parallel(*works)

    def slices(self, n: int) -> tuple[int, int]:
        """Address of the partial sums of resident levels, and how many slices have them."""
        n_slices = self.plan.n_slices(n)
        n_partial = n_slices * self.plan.n_resident_sums if n_slices > 1 else 0
        return self._rooms("residents", 4 * n_partial), n_slices

    def add_up_slices(self, this: Pass) -> None:
        """Add up resident levels, to partial sums if there are several slices."""
        plan, (sums_of_slices, n_slices) = self.plan, self.slices(this.n)
        n_threads, bytes_ = resident.N_THREADS, plan.resident_bytes
        kernel = self._kernel(resident.resident_kernel, self._options, n_threads, bytes_)
        kernel(
            (n_slices, len(plan.residents)),
            *(this.inputs, this.n, this.words, this.pitch, this.largest, sums_of_slices),
            *(this.gradients, this.factor, int(this.adds), this.noted),
        )

    def _add_up_residents(self, this: Pass) -> None:
        sums_of_slices, n_slices = self.slices(this.n)
        self.add_up_slices(this)
        if n_slices > 1:
            n_threads = resident.COLLECT_THREADS
            collect = self._kernel(resident.collect_residents_kernel, (), n_threads)
            rest = this.gradients, this.factor, int(this.adds), this.noted
            collect(self.plan.blocks_of_residents(n_threads), sums_of_slices, n_slices, *rest)

    @cached_property
    def _most_areas(self) -> int:
        of_area = 2 * 8 * sorting.ROUND * len(self.plan.binned)
        return max(min(sums.MOST_AREAS, RECORD_BYTES // of_area), 1)

    def _add_up_bins(self, this: Pass) -> None:
        of_block = records.block_samples(self.plan)
        n_jobs, slab = len(self.plan.binned), self._most_areas * of_block
        write = self._kernel(
            *(records.records_kernel, self._options),
            *(sorting.N_THREADS, sorting.SHARED_BYTES, records.MOST_REGISTERS),
        )
        add_up = self._kernel(
            *(sums.sums_kernel, (self._first_word,), sums.N_THREADS),
            sums.shared_bytes(self._most_areas),
        )
        sums_of_slices = self._rooms("bins", 8 * sums.partial_places(self.plan)[-1])
        grid = max(job.n_bins * job.n_slices for job in self.plan.binned), n_jobs
        for first in range(0, this.n, slab):
            n = min(slab, this.n - first)
            n_areas = -(-n // of_block)
            places = self._rooms("records", 2 * 8 * sorting.ROUND * n_areas * n_jobs)
            offsets = self._rooms("offsets", 2 * 4 * self.plan.n_offsets * n_areas * n_jobs)
            x, words = this.inputs + 4 * first * self._n_columns, this.words + 4 * first
            write(
                (n_areas, n_jobs),
                *(x, n, words, this.pitch, this.largest, places, offsets, this.second),
                *(first, this.n),
            )
            rest = this.factor, int(this.adds or first > 0), this.noted
            of_sums = this.second, this.largest, this.gradients, sums_of_slices
            add_up(grid, places, offsets, n_areas, *of_sums, *rest)
            self._collect_bins(sums_of_slices, this.gradients, rest)

    def _collect_bins(self, sums_of_slices: int, gradients: int, rest: tuple) -> None:
        jobs = [job for job in self.plan.binned if job.n_slices > 1]
        if jobs:
            n_threads = sums.COLLECT_THREADS
            collect = self._kernel(sums.collect_bins_kernel, (), n_threads)
            grid = -(-max(job.size for job in jobs) // n_threads), len(jobs)
            collect(grid, sums_of_slices, gradients, *rest)


def pitch_of(n: int) -> int:
    """Words of a row for n samples."""
    return next_multiple(n, PIECE)


class ModelTables:
    """Tables of all grids of a model, whose features' gradients a fused kernel keeps.

    Args:
        device: a CudaDevice, or anything with its methods.
        encoding: of the model, padded.
        precision: of the features' gradients.
        max_shared_bytes: for the table of a level, instead of what the device has for a block.
    """

    def __init__(
        self, device: Any, encoding: AbstractEncoding, precision: str,
        max_shared_bytes: int | None = None,
    ):  # fmt: skip
        parts = [part for part in encoding.parts if part.encoding.n_params]
        first = min(part.first_column for part in parts) // 2
        stop = max(part.first_column + part.encoding.n_outputs for part in parts)
        self._kept = first, -(-stop // 2)  # pairs of features: the first one, and the end
        self._n_words = self._kept[1] - first
        self._device, self._precision = device, precision
        self._rooms = Rooms(device)
        most, n_dims = max_shared_bytes or device.max_shared_bytes, encoding.n_dims
        plans = [FeaturePlan(part, most, precision) for part in parts]
        self._n_dims = n_dims
        self._features = [plan for plan in plans if plan.levels and in_pairs_of(encoding)]
        self.given = tuple(word for plan in self._features for word in plan.words)
        most_are_given = 2 * len(self.given) >= self._n_words
        # Samples from which on features are given, and in inference.
        self.fewest_given = FEWEST_MOST_GIVEN if most_are_given else FEWEST_GIVEN
        self.fewest_inferred = FEWEST_MOST_INFERRED if most_are_given else FEWEST_INFERRED
        if not self.given:
            self.fewest_given = self.fewest_inferred = NEVER
        self.grids = [
            TableGradients(device, TablePlan(part, most), n_dims, first, precision, self._rooms)
            for part in parts
        ]
        n_reductions = sum(each.plan.n_reductions for each in self.grids)  # of a sample
        self.fewest = math.ceil(FEWEST_REDUCTIONS / n_reductions)  # samples
        self.waiting = []  # passes of grids whose sums are left to the caller

    @property
    def generation(self) -> int:
        """Counter that changes when memory has moved."""
        return self._rooms.generation

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self._rooms.release()

    def keep(self, n: int) -> Kept:
        """Range of the features whose gradients of n samples are kept, and memory for them."""
        self._device.zero(self._flags.address, self._flags.nbytes)
        return Kept(*self._kept, self._room(n), self._flags.address)

    def _room(self, n: int) -> int:
        return self._rooms("words", 4 * pitch_of(n) * self._n_words)

    def give(self, inputs: int, n: int, params: int) -> Kept:
        """Kept, with the features of levels that are looked up in shared memory.

        Inputs and the encoding's parameters are addresses.
        """
        kept = self.keep(n)
        self._look_up(inputs, n, params, kept.address)
        return kept._replace(given=self.given)

    def look_up(self, inputs: int, n: int, params: int) -> Kept:
        """Look up features as `give` does, where no gradients are needed."""
        address = self._room(n)
        self._look_up(inputs, n, params, address)
        return Kept(*self._kept, address, 0, self.given)

    def _look_up(self, inputs: int, n: int, params: int, address: int) -> None:
        for grid, kernel in self._feature_kernels:
            kernel(grid, inputs, n, params, address, pitch_of(n))

    @cached_property
    def _feature_kernels(self) -> list[tuple[tuple[int, int], Kernel]]:
        found = []
        for plan in self._features:
            function = features.features_kernel(plan, self._n_dims, self._kept[0])
            kernel = Kernel(self._device, function, features.N_THREADS, plan.shared_bytes)
            found.append(((plan.n_slices, len(plan.levels)), kernel))
        return found

    @cached_property
    def _flags(self) -> DeviceArray:
        """Largest gradient of each pair, flags of levels with second rounds, and `noted`."""
        n_seconds = sum(len(each.plan.binned) for each in self.grids)
        return empty((self._n_words + n_seconds + 1,), np.float32, self._device)

    @property
    def noted(self) -> DeviceArray:
        """Magnitude of the largest gradient of a pass, if it is large, or NaN: one float32."""
        return self._flags[-1:]

    @property
    def largest(self) -> DeviceArray:
        """Magnitudes of the largest gradients of pairs of features; infinite or NaN if one is."""
        return self._flags[: self._n_words]

    def can_wait(self, n: int) -> bool:
        """Whether a step of n samples may be decided before the sums: finite if `largest` is."""
        return self._precision == "float16" and n <= MOST_FORESEEN

    def has_slices_alone(self, n: int) -> bool:
        """Whether all levels are resident, and have several slices for n samples."""
        return all(not each.plan.binned and each.plan.n_slices(n) > 1 for each in self.grids)

    def passes(
        self, inputs: int, n: int, kept: Kept, gradients: int, factor: float, adds: bool
    ) -> list[tuple[TableGradients, Pass]]:
        """Arguments of each grid; `gradients` is the address of the encoding's first one."""
        second, found = kept.largest + 4 * self._n_words, []
        of_batch = inputs, n, kept.address, pitch_of(n), kept.largest
        for grid in self.grids:
            to = gradients + 4 * grid.plan.part.first_param
            found.append((grid, Pass(*of_batch, second, to, factor, adds, self.noted.address)))
            second += 4 * len(grid.plan.binned)
        return found

    def __call__(self, *arguments) -> None:
        """Add up the kept gradients, for the arguments of `passes`."""
        for grid, this in self.passes(*arguments):
            grid(this)


def tables_of(device: Any, encoding: AbstractEncoding, precision: str) -> ModelTables | None:
    """Tables of a model whose parameters are all those of suitable grids; else None."""
    parts = [part for part in encoding.parts if part.encoding.n_params]
    served = all(
        part.encoding.has_edges and TablePlan(part, device.max_shared_bytes).is_possible
        for part in parts
    )
    return ModelTables(device, encoding, precision) if parts and served else None
