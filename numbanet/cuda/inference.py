"""Inference that recurs: with the arrays of earlier calls it is the replay of a graph."""

from collections.abc import Callable
from typing import Any

from numbanet.cuda.driver.context import DEFAULT_STREAM
from numbanet.cuda.driver.graphs import MOST, Graphs
from numbanet.cuda.memory.arrays import DeviceArray, Memory
from numbanet.cuda.memory.inputs import FLOAT
from numbanet.storage.views import FLOAT_BYTES


class RecurringInference:
    """Calls of one model with its own parameters.

    Args:
        device: a CudaDevice, or anything with its methods.
        n_outputs: of a sample.
    """

    def __init__(self, device: Any, n_outputs: int):
        self._device, self._n_outputs = device, n_outputs
        self._graphs = Graphs(device)
        self._known = {}  # place of inputs -> place of outputs -> captured work, its memory's state

    def again(
        self, inputs: Any, out: Any, engine: Any, parameters: Any, evaluate: Callable
    ) -> DeviceArray | None:
        """Outputs for inputs that have been checked before; see `run`.

        Returns:
            None, with nothing done, where they are not known to be such.
        """
        device = self._device
        if not (
            type(inputs) is DeviceArray and inputs.dtype is FLOAT and inputs.device is device
            and parameters.are_current and device.stream == DEFAULT_STREAM
        ):  # fmt: skip
            return None
        with device.lock:
            known = self._known.get((inputs.address, inputs.shape))
            if known is None:
                return None
            is_new = out is None
            if is_new:
                out = self._empty(inputs.shape[0])
            elif type(out) is not DeviceArray or out.dtype is not FLOAT or out.device is not device:
                return None
            work, generation = known.get((out.address, out.shape), (None, 0))
            if work is not None and work.graph is not None and generation == engine.generation:
                self._graphs.replay(work)
                return out
            return self.run(inputs, parameters.current(), out, engine, evaluate) if is_new else None

    def run(
        self, inputs: DeviceArray, params: DeviceArray, outputs: DeviceArray | None, engine: Any,
        evaluate: Callable,
    ) -> DeviceArray:  # fmt: skip
        """Outputs, in a given array or in a new one.

        Args:
            inputs, outputs: checked.
            evaluate: a pass of the engine, for inputs, params and outputs.
        """
        if self._device.stream != DEFAULT_STREAM:  # another library may be capturing what it holds
            return evaluate(inputs, params, outputs)
        with self._device.lock:
            if outputs is None:
                outputs = self._empty(inputs.shape[0])
            place, to = (inputs.address, inputs.shape), (outputs.address, outputs.shape)
            generation = engine.generation
            key = place, to, params.address, generation
            work = self._graphs.run(key, evaluate, inputs, params, outputs)
            if work.graph is not None:
                if len(self._known) >= 2 * MOST:
                    self._known.clear()
                of_place = self._known.setdefault(place, {})
                if len(of_place) >= MOST:
                    of_place.clear()
                of_place[to] = work, generation
        return outputs

    def _empty(self, n: int) -> DeviceArray:
        memory = Memory(self._device, FLOAT_BYTES * n * self._n_outputs)
        shape = n, self._n_outputs
        return DeviceArray(shape, FLOAT, memory.address, memory, self._device)
