"""CPU engine, which calls the kernels with checked arrays."""

import numpy as np
from numba import get_num_threads

from numbanet.cpu import kernels, operations
from numbanet.cpu.double_backward import double_backward_kernel
from numbanet.cpu.encoding_engine import EncodingEngine
from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.optimizer_kernel import n_beyond, optimizer_kernel
from numbanet.cpu.tile_buffers import BufferLayout
from numbanet.cpu.training_plan import TrainingPlan
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import AlwaysDeterministic, Batch, Gradients, LossSums, Service
from numbanet.losses.base import AbstractLoss
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout

NO_ENDS = np.empty(0, np.int64)
NO_MATRIX = np.empty((0, 0), np.float32)
OPTIMIZER_CHUNK = 4096  # parameters


class CpuEngine(AlwaysDeterministic):
    """Engine of one encoded network on all cores; arrays are float32 NumPy arrays."""

    precision = "float32"

    def __init__(self, model: EncodedNetwork):
        self.model = model
        self._encoding = EncodingEngine(model.encoding)
        self.n_output_dims = model.network.n_output_dims
        self._key, self._numbers = model.kernel_key(), np.array(model.encoding.numbers, np.int64)
        # Per sample, that `forward` can keep: features and hidden layers.
        self.n_kept = model.n_encoded + BufferLayout(model.network).n_kept
        self._param_ends = np.array(model.encoding.partition_param_ends, np.int64)
        self._trainings = {}  # options of a plan -> the plan and its kernel

    def services(self) -> list[Service]:
        reason = f"tiles of samples, {get_num_threads()} threads; float32 is all a CPU has"
        return [
            Service("inference, training", "CPU, encoding and network in one kernel", reason),
            Service("second derivatives", "CPU, a kernel for each of the two", reason),
        ]

    def inference(
        self, inputs: np.ndarray, params: np.ndarray, outputs: np.ndarray | None = None
    ) -> np.ndarray:
        if outputs is None:
            outputs = np.empty((inputs.shape[0], self.model.network.n_output_dims), np.float32)
        kernels.inference_kernel(self._key)(inputs, params, self._numbers, outputs, NO_MATRIX)
        return outputs

    def forward(
        self, inputs: np.ndarray, params: np.ndarray, outputs: np.ndarray, kept: np.ndarray
    ) -> None:
        """Write the outputs and, for a Batch, the features [n, n_encoded] or all [n, n_kept]."""
        kernel = kernels.inference_kernel(self._key, keeps_features=True)
        kernel(inputs, params, self._numbers, outputs, kept)

    def forward_backward(
        self,
        batch: Batch,
        params: np.ndarray,
        loss: AbstractLoss | None = None,
        gradients: Gradients | None = None,
        dl_dinput: np.ndarray | None = None,
        *,
        overwrite: bool = False,
    ) -> LossSums:
        param_ends = self._param_ends if overwrite and len(batch) else NO_ENDS
        if overwrite:
            self._clear(gradients.flat, param_ends)
        of_samples = batch.features, batch.targets, batch.pdf, batch.external_dl_dy
        has_features, _, has_pdf, has_external_dl_dy = [each is not None for each in of_samples]
        plan, kernel = self._training(
            loss, has_pdf, has_external_dl_dy, gradients is not None, dl_dinput is not None,
            has_features,
        )  # fmt: skip
        n = len(batch)
        n_elements = batch.n_elements(self.model.network.n_output_dims)
        group_rows = plan.group_rows(n, self.model.n_params)
        losses = np.zeros(-(-min(n, plan.slab_rows) // group_rows))
        if n == 0:
            return LossSums(losses, 0, n_elements)
        kernel(
            batch.inputs,
            *(NO_MATRIX if each is None else each for each in of_samples),
            params,
            self._numbers,
            group_rows,
            plan.encoded_rows(n, get_num_threads()),
            np.float32(1.0 / n_elements),
            param_ends,
            NO_MATRIX.reshape(-1) if gradients is None else gradients.flat,
            NO_MATRIX if dl_dinput is None else dl_dinput,
            losses,
        )
        return LossSums(losses, len(losses), n_elements)

    def _clear(self, gradients: np.ndarray, param_ends: np.ndarray) -> None:
        """Zero all gradients but those of partitions that end there: the kernel does it."""
        n_network_params = self.model.network.n_params
        last = param_ends[-1] if len(param_ends) else 0
        gradients[:n_network_params] = 0
        gradients[n_network_params + last :] = 0

    def _training(self, *options) -> tuple[TrainingPlan, ParallelKernel]:
        """Plan with these options, and its kernel."""
        if options not in self._trainings:
            plan = TrainingPlan(self._key, *options)
            self._trainings[options] = plan, kernels.training_kernel(plan)
        return self._trainings[options]

    def double_backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        dl_dy: np.ndarray,
        dl_ddl_dx: np.ndarray,
        gradients: Gradients | None,
        outputs: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        network, encoding = self.model.network, self._encoding
        own_params, own_gradients = params[network.n_params :], None
        if gradients is not None and len(own_params) > 0:
            own_gradients = Gradients(gradients.flat[network.n_params :])
        plan = TrainingPlan(self._key, None, param_gradients=gradients is not None)
        kernel = double_backward_kernel(network, plan.param_gradients)
        flat = gradients.flat if plan.param_gradients else NO_MATRIX.reshape(-1)
        outputs = outputs or (np.empty_like(dl_dy), np.empty_like(inputs))
        dl_ddl_dy, dl_dx = outputs
        for first in range(0, inputs.shape[0], plan.slab_rows):
            rows = slice(first, first + plan.slab_rows)
            x, direction = inputs[rows], dl_ddl_dx[rows]
            features = encoding.forward(x, own_params)
            # Tangents do not depend on the gradient, for which the features stand in here.
            tangents, _ = encoding.double_backward(x, own_params, features, direction, None)
            group_rows = plan.group_rows(len(x), self.model.n_params)
            kernel(features, tangents, params, dl_dy[rows], group_rows, flat, dl_ddl_dy[rows])
            dl_dfeatures, dl_dtangents = features, tangents
            encoding.backward(x, own_params, dl_dfeatures, own_gradients, dl_dx[rows])
            _, through_backward = encoding.double_backward(
                x, own_params, dl_dtangents, direction, own_gradients
            )
            dl_dx[rows] += through_backward
        return outputs


def all_below(values: np.ndarray, limit: float = np.inf) -> bool:
    """Whether all of a float32 vector are below a limit in magnitude; NaN is not."""
    return n_beyond(values.view(np.int32), np.float32(limit).view(np.int32)) == 0


def optimize(
    optimizer: AbstractOptimizer,
    layout: ParamLayout,
    t: int,
    weights: np.ndarray,
    gradients: np.ndarray,
    *kept: np.ndarray,
    first: int = 0,
    chunk: int = OPTIMIZER_CHUNK,
) -> None:
    """Make step t (from 1) of the optimizer, in place.

    Args:
        kept: state, matrices and statistics; the state of the weights from `first` on, which are
            stepped.
    """
    state, matrices, statistics = kept
    key, hyperparams = optimizer.kernel_key(), np.array(optimizer.hyperparams(), np.float32)
    scalars = np.empty(optimizer.n_scalars, np.float32)
    arrays = np.int32(t), weights, gradients, state, matrices, hyperparams, scalars, first, chunk
    if not optimizer.preconditions(layout):
        optimizer_kernel(key, layout)(*arrays)
    else:
        optimizer_kernel(key, layout, steps=False)(*arrays)
        optimizer.precondition(operations, layout, state, matrices, statistics, scalars)
        optimizer_kernel(key, layout, prepares=False)(*arrays)
