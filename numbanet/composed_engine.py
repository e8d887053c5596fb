"""Passes over a composition: one engine of the target for each part, and columns between them.

The parts are evaluated in their order. Backward, each takes the gradient of its outputs, which
those that read it have added up, and adds that of its inputs to what it reads.

Second derivatives: with outputs y = f(x), and the tangents dy = f'(x) dx, the gradient of the
inputs times a direction dx is dl_dy dy at the end. So tangents are carried forward beside the
values, and both are differentiated; see docs/design/architecture.md.
"""

import dataclasses
from typing import Any

from numbanet.composition import INPUT, Columns, Composition
from numbanet.engine import Batch, Gradients, LossSums, Service
from numbanet.losses.base import AbstractLoss
from numbanet.part_engine import PartEngine
from numbanet.target import AbstractTarget


class ComposedEngine:
    """Engine of a composition; arrays are float32 in rows of samples.

    Args:
        target: where it runs.
        composition: that is evaluated.
        engine: that of an encoding by itself, if it is there already.

    Raises:
        ValueError: an engine cannot be as it was asked for.
    """

    def __init__(self, target: AbstractTarget, composition: Composition, engine: Any = None):
        self._target, self.composition = target, composition
        self.precision = target.precision
        self._parts: list[PartEngine] = []
        for part, start in zip(composition.parts, composition.starts, strict=True):
            shared = engine if part.shares is None else self._parts[part.shares].engine
            self._parts.append(PartEngine(target, part, start, shared))
        self._arrays: dict[tuple, Any] = {}
        self._generation = 0
        self._lock = target.lock()
        self._last = self._only_reader()

    def _only_reader(self) -> PartEngine | None:
        """Last part, if it is a network and its outputs are the model's: it evaluates the loss."""
        n, last = len(self._parts), self._parts[-1]
        outputs = (Columns(n - 1, 0, last.part.n_outputs),)
        return last if last.has_network and self.composition.outputs == outputs else None

    # Properties of an engine

    is_queued = True  # on a GPU: the host waits for nothing

    def services(self) -> list[Service]:
        """Kernels that serve each pass of each part."""
        return [
            dataclasses.replace(each, passes=f"{part.part.name}: {each.passes}".removeprefix(": "))
            for part in self._parts
            if part.part.shares is None
            for each in part.engine.services()
        ]

    @property
    def n_output_dims(self) -> int:
        return self.composition.n_output_dims

    @property
    def generation(self) -> int:
        """Counter that changes when memory used by queued work has moved."""
        return self._generation + sum(part.engine.generation for part in self._parts)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes from which on other kernels serve."""
        sizes = (getattr(part.engine, "batch_sizes", ()) for part in self._parts)
        return tuple(sorted({size for each in sizes for size in each}))

    @property
    def deterministic(self) -> bool:
        """Whether gradients and losses are the same bits in every run; may be set."""
        return all(part.engine.deterministic for part in self._parts)

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        for part in self._parts:
            part.engine.deterministic = value

    def release(self) -> None:
        """Free the memory between the parts; it is allocated again when needed."""
        self._arrays.clear()
        self._generation += 1

    # Memory, and columns in it

    def _array(self, name: str, k: int, n: int, width: int) -> Any:
        """Cached array of that name for part k, [n, width], uninitialised."""
        found = self._arrays.get((name, k))
        if found is None or len(found) < n:
            self._arrays.pop((name, k), None)  # freed before the new one is made
            found = self._arrays[name, k] = self._target.empty(max(n, 1), width)
            self._generation += 1
        return found[:n]

    def _gathered(self, name: str, k: int, read: tuple[Columns, ...], sources: dict) -> Any:
        """Columns that part k reads, side by side; the array itself if they are all of it."""
        first = read[0]
        whole = sources[first.source]
        if len(read) == 1 and first.n == whole.shape[1]:
            return whole
        found = self._array(name, k, len(whole), sum(columns.n for columns in read))
        self._gather(read, sources, found)
        return found

    def _gather(self, read: tuple[Columns, ...], sources: dict, to: Any) -> None:
        at = 0
        for columns in read:
            self._target.copy_columns(sources[columns.source], columns.first, to, at, columns.n)
            at += columns.n

    def _scatter(self, gradient: Any, read: tuple[Columns, ...], to: dict) -> None:
        """Add the gradient of gathered columns to the gradients of their sources."""
        at = 0
        for columns in read:
            if columns.source in to:
                whole = to[columns.source]
                args = gradient, at, whole, columns.first, columns.n
                self._target.copy_columns(*args, adds=True)
            at += columns.n

    # Passes

    def _forward(
        self, x: Any, params: Any, parts: list[PartEngine], y: Any = None
    ) -> tuple[dict[int, Any], list[Any]]:
        """Outputs of the parts by number, with the inputs, and the columns that parts read."""
        outputs, read = {INPUT: x}, []
        for k, part in enumerate(parts):
            read.append(self._gathered("x", k, part.part.inputs, outputs))
            given = y is not None and part is self._last
            outputs[k] = y if given else self._array("y", k, len(x), part.part.n_outputs)
            part.forward(read[k], params, outputs[k])
        return outputs, read

    def inference(self, inputs: Any, params: Any, outputs: Any = None) -> Any:
        """Outputs [n, n_output_dims], in a given array or in a new one."""
        with self._lock:
            if outputs is None:
                outputs = self._target.empty(len(inputs), self.n_output_dims)
            values, _ = self._forward(inputs, params, self._parts, outputs)
            if self._last is None:
                self._gather(self.composition.outputs, values, outputs)
        return outputs

    def forward_backward(
        self, batch: Batch, params: Any, loss: AbstractLoss | None = None,
        gradients: Gradients | None = None, dl_dinput: Any = None, *, overwrite: bool = False,
    ) -> LossSums:  # fmt: skip
        """Add to `gradients` and overwrite `dl_dinput`, where they are given; see Engine."""
        with self._lock:
            if overwrite and gradients is not None:
                self._target.set_zero(gradients.flat)
            last = self._last if batch.noise is None or loss is None else None
            n_before = len(self._parts) - (last is not None)
            values, read = self._forward(batch.inputs, params, self._parts[:n_before])
            wanted = self._wanted(len(batch), gradients is not None, dl_dinput, last)
            if last is not None:
                k = n_before
                x = self._gathered("x", k, last.part.inputs, values)
                own = dataclasses.replace(batch, inputs=x)
                dl_dx = self._gradient_of_inputs(k, x, wanted)
                sums = last.with_loss(own, params, loss, gradients, dl_dx)
                sums.noted = None  # which would be of this part alone
                if dl_dx is not None:
                    self._scatter(dl_dx, last.part.inputs, wanted)
            else:
                y = self._gathered("y", INPUT, self.composition.outputs, values)
                sums, dl_dy = self._loss(batch, loss, y)
                self._scatter(dl_dy, self.composition.outputs, wanted)
            self._backward(n_before, read, params, gradients, wanted)
        return sums

    def _loss(self, batch: Batch, loss: AbstractLoss | None, y: Any) -> tuple[LossSums, Any]:
        """Loss of outputs, and their gradient."""
        dl_dy = self._array("dl_dy", INPUT, len(batch), self.n_output_dims)
        if batch.noise is not None and loss is not None:
            perturbed = self._array("perturbed", INPUT, *y.shape)
            batch.noise.perturb(y, perturbed)
            y = perturbed
        sums = self._target.row_loss(loss, batch, y, dl_dy)
        return sums, dl_dy if batch.external_dl_dy is None else batch.external_dl_dy

    def _wanted(
        self, n: int, params: bool, dl_dinput: Any, last: PartEngine | None
    ) -> dict[int, Any]:
        """Zeros for the gradients of the sources of parts, where these are wanted."""
        wanted = {} if dl_dinput is None else {INPUT: dl_dinput}
        for k, part in enumerate(self._parts):
            reads_wanted = any(columns.source in wanted for columns in part.part.inputs)
            if part is not last and ((params and part.n_params) or reads_wanted):
                wanted[k] = self._array("dl_dy", k, n, part.part.n_outputs)
        for each in wanted.values():
            self._target.set_zero(each)
        return wanted

    def _gradient_of_inputs(self, k: int, x: Any, wanted: dict) -> Any:
        """Memory for the gradient of part k's columns, if their sources want it."""
        if any(columns.source in wanted for columns in self._parts[k].part.inputs):
            return self._array("dl_dx", k, *x.shape)
        return None

    def _backward(self, n_parts: int, read: list, params, gradients, wanted: dict) -> None:
        """Backpropagate from the gradients of the outputs of the first n_parts parts."""
        for k in reversed(range(n_parts)):
            if k in wanted:
                dl_dx = self._gradient_of_inputs(k, read[k], wanted)
                self._parts[k].backward(read[k], params, wanted[k], gradients, dl_dx)
                if dl_dx is not None:
                    self._scatter(dl_dx, self._parts[k].part.inputs, wanted)

    def double_backward(
        self, inputs: Any, params: Any, dl_dy: Any, dl_ddl_dx: Any, gradients: Gradients | None,
        outputs: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Gradients with respect to dl_dy and the inputs; see Engine."""
        with self._lock:
            empty, set_zero = self._target.empty, self._target.set_zero
            outputs = outputs or (empty(*dl_dy.shape), empty(*inputs.shape))
            dl_ddl_dy, dl_dx = outputs
            values, read = self._forward(inputs, params, self._parts)
            along, tangents = self._tangents(values, read, params, dl_ddl_dx)
            self._gather(self.composition.outputs, tangents, dl_ddl_dy)
            of_values, of_tangents = {INPUT: dl_dx}, {}
            for k, part in enumerate(self._parts):
                shape = len(inputs), part.part.n_outputs
                of_values[k] = self._array("dl_dy", k, *shape)
                of_tangents[k] = self._array("dl_dtangent", k, *shape)
            for each in (*of_values.values(), *of_tangents.values()):
                set_zero(each)
            self._scatter(dl_dy, self.composition.outputs, of_tangents)
            for k in reversed(range(len(self._parts))):
                part, x, to = self._parts[k], read[k], self._parts[k].part.inputs
                own = self._array("dl_dx", k, *x.shape)
                part.backward(x, params, of_values[k], gradients, own)
                self._scatter(own, to, of_values)
                scratch = self._array("scratch", k, *of_tangents[k].shape)
                given = x, params, of_tangents[k], along[k], gradients, (scratch, own)
                part.double_backward(*given)
                self._scatter(own, to, of_values)
                part.backward(x, params, of_tangents[k], None, own)
                self._scatter(own, to, of_tangents)
        return outputs

    def _tangents(self, values: dict, read: list, params: Any, direction: Any) -> tuple:
        """Tangents: of the columns that each part reads, and of all sources by number."""
        tangents, along = {INPUT: direction}, []
        for k, part in enumerate(self._parts):
            along.append(self._gathered("tangent", k, part.part.inputs, tangents))
            tangents[k] = self._array("dy", k, *values[k].shape)
            scratch = self._array("dl_dx", k, *read[k].shape)
            # Tangents do not depend on the gradient, for which the outputs stand in here.
            given = values[k], along[k], None, (tangents[k], scratch)
            part.double_backward(read[k], params, *given)
        return along, tangents
