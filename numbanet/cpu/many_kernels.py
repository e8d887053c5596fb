"""CPU kernels for many models of one shape, each of which runs on one core at a time.

The parallel parts of a model's kernels run one after the other, in the same order.
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.kernels import inference_kernel, training_kernel
from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.optimizer_kernel import count_beyond, optimizer_kernel
from numbanet.cpu.training_plan import ENCODED_ROWS, TrainingPlan
from numbanet.device import device
from numbanet.encoded_network import EncodedNetwork
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout

SKIPPED, STEPPED, LEFT = range(3)  # outcome of a model's step; the host handles the last one
INFINITY = np.float32(np.inf).view(np.int32)
MAGNITUDE_64, INFINITY_64 = np.int64(2**63 - 1), np.float64(np.inf).view(np.int64)


@cache
def many_inference_kernel(model: EncodedNetwork) -> ParallelKernel:
    """(xs, params, numbers, ys, features): xs [1 or n_models, n, n_dims], ys [n_models, n, ...]."""
    infer = device(inference_kernel(model).function)

    def many_inference(xs, params, numbers, ys, features):
        for k in prange(params.shape[0]):
            infer(xs[k % xs.shape[0]], params[k], numbers, ys[k], features)

    return ParallelKernel(many_inference)


@cache
def many_training_kernel(plan: TrainingPlan) -> ParallelKernel:
    """(xs, targets, pdf, empty, params, numbers, group_rows, scale, gradients, losses).

    The gradients and the losses are overwritten, [n_models, ...]; samples are [1 or n_models, ...].
    """
    train = device(training_kernel(plan).function)

    def many_training(
        xs, targets, pdf, empty, params, numbers, group_rows, scale, gradients, losses
    ):  # fmt: skip
        for k in prange(params.shape[0]):
            gradients[k] = 0
            losses[k] = 0
            train(
                xs[k % xs.shape[0]], empty, targets[k % targets.shape[0]], pdf[k % pdf.shape[0]],
                empty, params[k], numbers, group_rows, ENCODED_ROWS, scale, numbers[:0],
                gradients[k], empty, losses[k],
            )  # fmt: skip

    return ParallelKernel(many_training)


@cache
def many_optimizer_kernel(optimizer: AbstractOptimizer, layout: ParamLayout) -> ParallelKernel:
    """(xs, losses, large, ts, params, gradients, state, matrices, hyperparams, scalars, chunk,
    outcomes): step each model whose numbers are finite, and write the outcome.

    Left are models that may overflow: those with ts of 0, and with parameters of `large` or more.
    """
    optimize = device(optimizer_kernel(optimizer, layout).function)
    least_bad = np.float32(optimizer.least_bad_gradient).view(np.int32)

    @device
    def is_bad(x, losses, gradients):
        bad = count_beyond(x.reshape(-1).view(np.int32), INFINITY) > 0
        for bits in losses.view(np.int64):
            bad |= (bits & MAGNITUDE_64) >= INFINITY_64
        return bad | (count_beyond(gradients.view(np.int32), least_bad) > 0)

    def many_optimize(
        xs, losses, large, ts, params, gradients, state, matrices, hyperparams, scalars, chunk,
        outcomes,
    ):  # fmt: skip
        for k in prange(params.shape[0]):
            if is_bad(xs[k % xs.shape[0]], losses[k], gradients[k]):
                gradients[k] = 0
                outcomes[k] = SKIPPED
            elif ts[k] == 0 or count_beyond(params[k].view(np.int32), large) > 0:
                outcomes[k] = LEFT
            else:
                optimize(
                    ts[k], params[k], gradients[k], state[k], matrices[k], hyperparams[k],
                    scalars[k], 0, chunk,
                )  # fmt: skip
                outcomes[k] = STEPPED

    return ParallelKernel(many_optimize)
