"""Steps of a model that are decided before its tables' gradients are added up."""

from collections.abc import Callable
from functools import partial
from typing import Any

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.parameters import CudaParameters
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.cuda.optimizer.parameter_groups import FOUR
from numbanet.cuda.optimizer.table_kernels import Stepped, collect_step_kernel
from numbanet.cuda.tables.gradients import TableGradients
from numbanet.engine import LossSums
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout

N_THREADS = 128


class TableSteps:
    """Steps that are decided beside the sums of tables' gradients.

    Where all tables are resident, the kernel that finishes these gradients makes the step.

    Args:
        device: a CudaDevice, or anything with its methods.
        parameters: that are stepped.
        layout: of these.
    """

    def __init__(self, device: Any, parameters: CudaParameters, layout: ParamLayout):
        self._device, self._parameters, self._layout = device, parameters, layout
        self._kernels = {}

    def serve(self, engine: Any, given: tuple) -> bool:
        """Whether a step of a pass with these arguments may be decided before its sums."""
        can_defer = getattr(engine, "can_defer", None)  # which a CudaEngine alone has
        return can_defer is not None and can_defer(len(given[0]), given[3])

    def collect(
        self, engine: Any, found: OptimizerKernels, optimizer: AbstractOptimizer, n: int
    ) -> bool:
        """Whether the kernel that finishes the gradients of a served batch of n can step them."""
        depends_on_itself = (
            found.group_size == FOUR
            and optimizer.n_matrix_state == 0
            and optimizer.is_tame
            and not optimizer.preconditions(self._layout)
        )
        if not depends_on_itself or not engine.tables.has_slices_alone(n):
            return False
        n_weights = engine.model.network.n_params
        places = [
            (n_weights + plan.part.first_param + job.first_param, job.size * plan.n_features)
            for plan in (grid.plan for grid in engine.tables.grids)
            for job in plan.residents
        ]
        return all(number % FOUR == 0 for place in ((n_weights,), *places) for number in place)

    def _begin(
        self, engine: Any, given: tuple, finish: Callable[[LossSums], None]
    ) -> tuple[list, Callable[[], None]]:
        """Queue a pass; gives the sums of grids that are left, and what decides the step."""
        loss = engine.begin_step(*given)
        passes, engine.tables.waiting = engine.tables.waiting, []

        def decide() -> None:
            engine.workspace.slots.add_waiting(False)
            finish(loss)

        return passes, decide

    def decide_beside(self, engine: Any, given: tuple, finish: Callable[[LossSums], None]) -> None:
        """Queue a pass, beside whose sums it is decided whether the step runs."""
        passes, decide = self._begin(engine, given, finish)

        def add_up() -> None:
            for grid, this in passes:
                grid(this)

        self._device.in_parallel(add_up, decide)

    def __call__(
        self, engine: Any, found: OptimizerKernels, given: tuple,
        finish: Callable[[LossSums], None], arrays: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Queue a step, whose gradients are collected and stepped by one kernel.

        Args:
            engine: of the model.
            given: the pass's arguments.
            finish: decides whether the step runs.
            arrays: addresses of weights, state, scalars, matrices, copy and control.
        """
        gradients = given[3].flat.address
        passes, decide = self._begin(engine, given, finish)
        n, (weights, *others) = engine.model.network.n_params, arrays
        decides = [decide]
        steps = [partial(found.optimize.over, n // FOUR, weights, gradients, *others, n)]
        for grid, this in passes:
            self._device.in_parallel(*decides, partial(grid.add_up_slices, this))
            rest = gradients, this.factor, *arrays
            collect = partial(self._collect(engine, found, grid), *grid.slices(this.n), *rest)
            self._device.in_parallel(*steps, collect)
            decides, steps = [], []
        self._parameters.finish_step()

    def _collect(
        self, engine: Any, found: OptimizerKernels, grid: TableGradients
    ) -> Callable[..., None]:
        if (found, grid) not in self._kernels:
            first = engine.model.network.n_params + grid.plan.part.first_param
            stepped = Stepped(found.optimizer, self._layout, engine.precision, first)
            kernel = Kernel(self._device, collect_step_kernel(grid.plan, stepped), N_THREADS)
            blocks = grid.plan.blocks_of_residents(FOUR * N_THREADS)
            self._kernels[found, grid] = partial(kernel, blocks)
        return self._kernels[found, grid]
