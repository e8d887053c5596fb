"""A GPU as a target: device arrays, and engines that queue kernels on its stream."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.architecture import HOPPER, reaches
from numbanet.communicator import ALONE
from numbanet.cuda.chain.derivative_engine import DerivativeEngine
from numbanet.cuda.chain.encoding_engine import EncodingEngine
from numbanet.cuda.chain.noise import Noise
from numbanet.cuda.chain.rows_of_samples import RowsOfSamples
from numbanet.cuda.engine import CudaEngine
from numbanet.cuda.in_kernels.device_functions import device_functions
from numbanet.cuda.inference import RecurringInference
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.many.device import ManyDevice
from numbanet.cuda.many.models import CudaMany
from numbanet.cuda.many.training import ManyTraining
from numbanet.cuda.memory import arrays, uniform
from numbanet.cuda.memory.arrays import DeviceArray, Memory
from numbanet.cuda.memory.inputs import (
    FLOAT,
    as_device_array,
    as_device_matrix,
    as_device_output,
    as_device_vector,
)
from numbanet.cuda.memory.loss_sums import write_mean
from numbanet.cuda.memory.parameters import CudaParameters, aligned
from numbanet.cuda.optimizer.in_pieces import TrainingInPieces
from numbanet.cuda.optimizer.training import CudaTraining
from numbanet.engine import Gradients
from numbanet.storage.views import DTYPES
from numbanet.target import SAMPLE, AbstractTarget

N_RUNS = 16  # of neighbouring rows, in a sample


class CudaTarget(AbstractTarget):
    """A GPU as a target, with parameters in one precision.

    Args:
        device: a CudaDevice, or anything with its methods.
        precision: of the parameters that the kernels read, and of what lies between the kernels.
        fused: see create_from_config.
        allocate: makes the memory of gradients and copies of a device and a size.
    """

    def __init__(
        self, device: Any, precision: str, fused: bool | None = None,
        allocate: Callable[..., Any] = Memory,
    ):  # fmt: skip
        self.device, self.precision, self.fused = device, precision, fused
        self._allocate = allocate

    @property
    def name(self) -> str:
        return f"cuda:{self.device.ordinal}"

    def matrix(self, value, name, n_columns, n_rows=None):
        if type(value) is DeviceArray and value.dtype is FLOAT and value.device is self.device:
            rows = value.shape[:1] if n_rows is None else (n_rows,)
            if value.shape == (*rows, n_columns):  # the usual case, twice in every training step
                return value
        return as_device_matrix(value, name, n_columns, n_rows, self.device)

    def vector(self, value, name, n):
        return as_device_vector(value, name, n, self.device)

    def array(self, value, name, shape):
        return as_device_array(value, name, shape, self.device)

    def output(self, value, name, shape):
        return as_device_output(value, name, shape, self.device)

    def output_apart(self, value, name, shape, **read):
        if type(value) is DeviceArray and value.dtype is FLOAT and value.shape == shape:
            own, is_usual = value.owner, value.device is self.device
            for array in read.values():  # of allocations of their own, which need no comparing
                if array is not None and (array.owner is own or type(array.owner) is not Memory):
                    is_usual = False
            if is_usual and type(own) is Memory:
                return value
        return super().output_apart(value, name, shape, **read)

    def overlap(self, a, b):
        return a.address < b.address + b.nbytes and b.address < a.address + a.nbytes

    def empty(self, *shape):
        return arrays.empty(shape, np.float32, self.device)

    def zeros(self, *shape):
        return arrays.zeros(shape, np.float32, self.device)

    def set_zero(self, array):
        self.device.zero(array.address, array.nbytes)

    def from_host(self, array):
        return arrays.to_device(array, self.device)

    def sampled(self, array):
        if len(array) <= SAMPLE:
            pieces = [array]
        else:  # runs of rows, because each is a copy of its own
            starts = range(0, len(array) - SAMPLE // N_RUNS, len(array) // N_RUNS)
            pieces = [array[start : start + SAMPLE // N_RUNS] for start in starts]
        copy = self.empty(sum(map(len, pieces)), *array.shape[1:])
        address = copy.address
        for piece in pieces:
            self.device.copy(address, piece.address, piece.nbytes)
            address += piece.nbytes
        return copy

    def to_host(self, array):
        return array.numpy()

    def copy_from_host(self, array, values):
        values = np.ascontiguousarray(values, np.float32)
        self.device.copy_to_device(array.address, values)

    @cached_property
    def _fill_uniform(self) -> Kernel:
        return Kernel(self.device, uniform.fill_uniform)

    def uniform(self, state, n, n_draws, n_threads):
        y = self.empty(n)
        self._fill_uniform.over(n_threads, y.address, n, state, n_draws, n_threads)
        return y

    @cached_property
    def _mean_kernel(self) -> Kernel:
        return Kernel(self.device, write_mean, WARP)

    def write_mean(self, loss, value):
        self._mean_kernel(1, loss.sums.address, loss.n, 1.0 / loss.n_elements, value.address)

    @cached_property
    def _rows_of_samples(self) -> RowsOfSamples:
        return RowsOfSamples(self.device)

    def copy_columns(self, source, first, to, at, n, adds=False):
        self._rows_of_samples.copy_columns(source, first, to, at, n, adds)

    def row_loss(self, loss, batch, outputs, dl_dy):
        return self._rows_of_samples.loss(loss, batch, outputs, dl_dy)

    def noise(self, state):
        return Noise(self.device, state)

    def lock(self):
        return self.device.lock

    def parameters(self, values, n_matrix_params, quantized=()):
        options = self.precision, quantized, self._allocate
        return CudaParameters(self.device, values, n_matrix_params, *options)

    def gradients(self, n_params, n_matrix_params):
        flat = aligned(self.device, n_params, "float32", n_matrix_params, self._allocate)
        self.device.zero(flat.address, flat.nbytes)
        return self.gradients_in(flat, n_matrix_params)

    def gradients_in(self, flat, n_matrix_params):
        n_scattered = flat.size - n_matrix_params
        in_halves = self.precision != "float32" and not reaches(self.device, HOPPER)
        if not in_halves or n_scattered == 0:
            return Gradients(flat)
        scatter = arrays.zeros((n_scattered + 1,), DTYPES[self.precision], self.device)
        return Gradients(flat, scatter[:n_scattered])

    def network_engine(self, model):
        return CudaEngine(self.device, model, self.precision, self.fused)

    def encoding_engine(self, encoding):
        return EncodingEngine(self.device, encoding, self.precision)

    def derivative_engine(self, composition):
        return DerivativeEngine(self.device, composition)

    def inferences(self, n_outputs):
        return RecurringInference(self.device, n_outputs)

    def device_functions(self, model, **options):
        return device_functions(self.device, model, self.precision, **options)

    def many(self, model, params, optimizers, layout, deterministic=False, quantized=()):
        device = ManyDevice(self.device, len(params))
        of_many = CudaTarget(device, self.precision, self.fused)
        engine = of_many.network_engine(model)
        engine.deterministic |= deterministic
        sizes = layout.n_params, model.network.n_params
        parameters = of_many.parameters(params[0], sizes[1], quantized)
        training = ManyTraining(device, engine, parameters, optimizers[0], layout)
        gradients = of_many.gradients(*sizes)
        return CudaMany(params, optimizers, engine, parameters, gradients, training)

    def training(self, engine, parameters, optimizer, layout, comm=ALONE):
        if comm.pieces is not None:
            return TrainingInPieces(self.device, engine, comm, parameters, optimizer, layout)
        return CudaTraining(self.device, engine, parameters, optimizer, layout, comm)
