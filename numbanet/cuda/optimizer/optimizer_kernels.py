"""Kernels at the end of a step, for one optimizer."""

import math
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import zeros
from numbanet.cuda.optimizer import kernels, rank_kernels
from numbanet.cuda.optimizer.parameter_groups import group_size
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout


class OptimizerKernels:
    """Kernels of one optimizer, and its scalars in device memory."""

    def __init__(
        self, device: Any, optimizer: AbstractOptimizer, layout: ParamLayout, precision: str,
        pitch: int | None = None,
    ):  # fmt: skip
        self._device, self._layout = device, layout
        self.optimizer = optimizer.kernel_key()
        self._precision, self._pitch = precision, pitch
        self.group_size = group_size(optimizer, layout)  # parameters to a thread
        self.hyperparams = zeros((max(optimizer.n_hyperparams, 1),), np.float32, device)
        self.scalars = zeros((max(optimizer.n_scalars, 1),), np.float32, device)
        self._values = None

    def prepare(self, run_optimizer: bool) -> None:
        """Compile the kernels at the end of a step, before it begins."""
        _ = self.finish if self._pitch is None else (self.vote, self.finish_of_ranks)
        if run_optimizer:
            _ = self.optimize

    def set_hyperparams(self, optimizer: AbstractOptimizer) -> None:
        values = optimizer.hyperparams()
        if values != self._values:
            self._values = values
            host = np.array(values, np.float32)
            self._device.copy_to_device(self.hyperparams.address, host)

    @cached_property
    def finish(self) -> Kernel:
        function = kernels.finish_kernel(self.optimizer)
        return Kernel(self._device, function)

    @cached_property
    def finish_of_ranks(self) -> Kernel:
        return Kernel(self._device, rank_kernels.finish_kernel(self.optimizer))

    @cached_property
    def vote(self) -> Kernel:
        return Kernel(self._device, rank_kernels.vote_kernel(self.optimizer.least_bad_gradient))

    @cached_property
    def vote_after(self) -> Kernel:
        """Kernel of the vote on the results of a step, not on its gradients."""
        return Kernel(self._device, rank_kernels.vote_kernel(math.inf))

    @cached_property
    def optimize(self) -> Kernel:
        function = kernels.optimize_kernel(
            self.optimizer, self._layout, self._precision, self._pitch
        )
        return Kernel(self._device, function)

    @cached_property
    def summands(self) -> Kernel:
        function = kernels.summands_kernel(self.optimizer, self._layout)
        return Kernel(self._device, function)

    @cached_property
    def matrix_step(self) -> Kernel:
        function = kernels.matrix_step_kernel(self.optimizer, self._layout)
        return Kernel(self._device, function, WARP)

    @cached_property
    def verify(self) -> Kernel:
        return Kernel(self._device, kernels.verify_step)

    @cached_property
    def restore(self) -> Kernel:
        return Kernel(self._device, kernels.restore)
