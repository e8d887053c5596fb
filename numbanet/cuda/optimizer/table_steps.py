"""Steps of a model whose tables' gradients are finished and stepped by one kernel."""

from collections.abc import Callable
from functools import partial
from typing import Any

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.parameters import CudaParameters
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.cuda.optimizer.parameter_groups import FOUR
from numbanet.cuda.optimizer.table_kernels import Stepped, collect_step_kernel
from numbanet.cuda.tables.gradients import TableGradients
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout

N_THREADS = 128


class TableSteps:
    """Steps of all parameters of a model whose tables are resident.

    Whether the step runs is decided before the gradients of tables are added up.

    Args:
        device: a CudaDevice, or anything with its methods.
        parameters: that are stepped.
        layout: of these.
    """

    def __init__(self, device: Any, parameters: CudaParameters, layout: ParamLayout):
        self._device, self._parameters, self._layout = device, parameters, layout
        self._kernels = {}

    def serve(
        self, engine: Any, found: OptimizerKernels, optimizer: AbstractOptimizer, given: tuple
    ) -> bool:
        """Whether the step of a pass with these arguments is one that can be made here."""
        can_defer = getattr(engine, "can_defer", None)  # which a CudaEngine alone has
        depends_on_itself = (
            found.group_size == FOUR
            and optimizer.n_matrix_state == 0
            and optimizer.is_tame
            and not optimizer.preconditions(self._layout)
        )
        if not depends_on_itself or can_defer is None or not can_defer(len(given[0]), given[3]):
            return False
        n_weights = engine.model.network.n_params
        places = [
            (n_weights + plan.part.first_param + job.first_param, job.size * plan.n_features)
            for plan in (grid.plan for grid in engine.tables.grids)
            for job in plan.residents
        ]
        return all(number % FOUR == 0 for place in ((n_weights,), *places) for number in place)

    def __call__(
        self, engine: Any, found: OptimizerKernels, given: tuple, finish: Callable[..., None],
        arrays: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Queue a step.

        Args:
            engine: of the model.
            given: the pass's arguments.
            finish: decides whether the step runs, by (found, given, loss, True).
            arrays: addresses of weights, state, scalars, matrices, copy and control.
        """
        gradients = given[3].flat.address
        loss = engine.begin_step(*given)
        passes, engine.tables.waiting = engine.tables.waiting, []
        n, (weights, *others) = engine.model.network.n_params, arrays

        def decide() -> None:
            engine.workspace.slots.add_waiting(False)
            finish(found, given, loss, True)

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
