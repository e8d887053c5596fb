"""Passes of a model one by one: forward, backward, and second derivatives."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from numbanet.activations import Activation
from numbanet.array_types import Array, ArrayLike
from numbanet.coarse_to_fine import CoarseToFine
from numbanet.engine import Gradients
from numbanet.model_arguments import check_gradient_mode
from numbanet.parameter_owner import ParameterOwner
from numbanet.shown import shown


@dataclass(frozen=True)
class Context:
    """State of a `forward` for `backward`. Nothing is copied: do not change the arrays between."""

    inputs: Array
    params: Array  # as the kernels read them
    has_levels: bool = False  # whether max_level is the last column of the inputs


class ModelPasses(ParameterOwner):
    """Owner of parameters that evaluates and differentiates with them, pass by pass."""

    __slots__ = ()

    activations: tuple[Activation, ...]
    engine: Any
    n_input_dims: int
    n_output_dims: int

    @abstractmethod
    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        """Outputs for arrays of the target, in a given array or in a new one."""

    @property
    @abstractmethod
    def coarse_to_fine(self) -> CoarseToFine:
        """Evaluator with a max_level; raises TypeError without a grid."""

    def forward(
        self,
        inputs: ArrayLike,
        params: ArrayLike | None = None,
        max_level: ArrayLike | None = None,
    ) -> tuple[Array, Context]:
        """Evaluate the model, and return the state for the backward passes too.

        Args:
            inputs: [n, n_input_dims], any batch size.
            params: use these instead of the model's own, float32 [n_params].
            max_level: see Trainer.training_step; the backward passes take it from the state.

        Raises:
            TypeError, ValueError: the arrays do not fit.
        """
        context = self._context(inputs, params, max_level)
        given = context.inputs, context.params, None
        evaluate = self.coarse_to_fine.inference if context.has_levels else self._evaluate
        return evaluate(*given), context

    def _context(self, inputs: Any, params: Any, max_level: Any) -> Context:
        inputs, params = self._inputs(inputs), self._chosen_params(params)
        if max_level is None:
            return Context(inputs, params)
        return Context(self.coarse_to_fine.inputs(inputs, max_level), params, has_levels=True)

    @overload
    def backward(
        self, context: Context, dl_dy: ArrayLike, *, gradient_mode: str = "overwrite"
    ) -> Array: ...

    @overload
    def backward(
        self, context: Context, dl_dy: ArrayLike, *, input_gradient: bool,
        gradient_mode: str = "overwrite",
    ) -> Array | None: ...  # fmt: skip

    def backward(
        self,
        context: Context,
        dl_dy: ArrayLike,
        *,
        input_gradient: bool = True,
        gradient_mode: str = "overwrite",
    ) -> Array | None:
        """Backpropagate the gradient of the outputs, float32 [n, n_output_dims].

        The gradient of the parameters goes to `gradients`: it replaces what is there, adds to it
        ("accumulate"), or is not computed ("ignore").

        Returns:
            The gradient of the inputs [n, n_input_dims], if `input_gradient`.

        Raises:
            TypeError, ValueError: the arrays do not fit, or the mode does not exist.
        """
        shape = context.inputs.shape
        dl_dy = self.target.matrix(dl_dy, "dl_dy", self.n_output_dims, shape[0])
        gradients = self._gradients_for(gradient_mode)
        dl_dx = self.target.empty(*shape) if input_gradient else None
        if context.has_levels:
            given = context.inputs, context.params, dl_dy, gradients, dl_dx
            return self.coarse_to_fine.propagate(*given)
        self._propagate(context, dl_dy, gradients, dl_dx)
        return dl_dx

    @abstractmethod
    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        """Backpropagate arrays of the target; writes dl_dx if given."""

    def double_backward(
        self,
        context: Context,
        dl_dy: ArrayLike,
        dl_ddl_dx: ArrayLike,
        *,
        gradient_mode: str = "overwrite",
    ) -> tuple[Array, Array]:
        """Differentiate `backward`'s gradient of the inputs once more.

        Args:
            context: of the forward pass.
            dl_dy: the gradient of the outputs that `backward` was given.
            dl_ddl_dx: the gradient of the loss with respect to the result of `backward`.
            gradient_mode: treatment of `gradients`.

        Returns:
            The gradients with respect to dl_dy [n, n_output_dims] and the inputs [n, n_input_dims].

        Raises:
            TypeError, ValueError: the arrays do not fit, the mode does not exist, or an activation
                has no second derivative.
        """
        for each in self.activations:
            if each.second is None:
                why = "the second derivative that double_backward needs"
                raise TypeError(f"activation {each.name} has no `second`, {why}")
        inputs, n = context.inputs, context.inputs.shape[0]
        dl_dy = self.target.matrix(dl_dy, "dl_dy", self.n_output_dims, n)
        dl_ddl_dx = self.target.matrix(dl_ddl_dx, "dl_ddl_dx", self.n_input_dims, n)
        gradients = self._gradients_for(gradient_mode)
        engine = self.coarse_to_fine if context.has_levels else self.engine
        return engine.double_backward(inputs, context.params, dl_dy, dl_ddl_dx, gradients)

    def input_gradient(
        self,
        dim: int,
        inputs: ArrayLike,
        params: ArrayLike | None = None,
        max_level: ArrayLike | None = None,
    ) -> Array:
        """Derivative of output `dim` with respect to the inputs, float32 [n, n_input_dims].

        Arguments but the first are those of `forward`.

        Raises:
            TypeError, ValueError: the arrays do not fit, or there is no such output.
        """
        if not (isinstance(dim, (int, np.integer)) and 0 <= dim < self.n_output_dims):
            raise ValueError(f"dim: {shown(dim)} is no output; use 0 to {self.n_output_dims - 1}")
        context = self._context(inputs, params, max_level)
        one_hot = np.zeros((context.inputs.shape[0], self.n_output_dims), np.float32)
        one_hot[:, dim] = 1
        return self.backward(context, one_hot, gradient_mode="ignore")

    def _inputs(self, inputs: Any) -> Any:
        return self.target.matrix(inputs, "inputs", self.n_input_dims)

    def _chosen_params(self, params: Any) -> Any:
        if params is not None:
            params = self.target.vector(params, "params", self.n_params)
        parameters = self.parameters
        return parameters.current() if params is None else parameters.converted(params)

    def _gradients_for(self, mode: str) -> Gradients | None:
        check_gradient_mode(mode)
        if mode == "ignore" or self.n_params == 0:
            return None
        if mode == "overwrite":
            self.target.set_zero(self.gradients)
        return self.target_gradients
