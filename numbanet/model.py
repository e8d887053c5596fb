"""Base of models: they own parameters, and evaluate forward and backward.

All parameters of a model are one flat float32 vector in tiny-cuda-nn's order: the network's
matrices, then the encoding's tables.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.coarse_to_fine import CoarseToFine
from numbanet.composition import Composition
from numbanet.derivatives import Derivatives, derivatives_of, jet_for
from numbanet.encodings.base import AbstractEncoding
from numbanet.grid_levels import GridLevel, levels_of
from numbanet.model_arguments import check_bool
from numbanet.model_passes import ModelPasses
from numbanet.random import Pcg32
from numbanet.summary import summary_of
from numbanet.target import AbstractTarget
from numbanet.targets import target_for


class AbstractModel(ModelPasses):
    """Base of models, which are evaluated and differentiated with the parameters that they own.

    Arrays that come out are NumPy arrays on the CPU, and arrays on the device on a GPU.
    """

    __slots__ = {  # with texts for help()
        "_coarse_to_fine": None,
        "_derivative_engine": None,
        "_inferences": None,
        "activations": "The activation of each layer; none for an encoding.",
        "composition": "The components that it is made of.",
        "encoding": "The encoding component.",
        "engine": "The engine that evaluates and differentiates the model.",
        "n_input_dims": "Inputs of a sample.",
        "n_output_dims": "Outputs of a sample.",
        "padded_output_dims": "Outputs of the kernels, whose last ones are dropped.",
    }

    padded_output_dims: int
    encoding: AbstractEncoding
    engine: Any

    def __init__(self, composition: Composition, rng: Pcg32, target: AbstractTarget):
        params, quantized = composition.initial_params(rng), composition.quantized
        super().__init__(params, composition.boundary, target, quantized)
        self.composition = composition
        self._coarse_to_fine = self._derivative_engine = None
        self.n_input_dims = composition.n_input_dims
        self.n_output_dims = composition.n_output_dims
        self._inferences = target.inferences(self.n_output_dims)
        networks = (part.network for part in composition.parts if part.network is not None)
        self.activations = tuple(
            activation for network in networks for activation in network.layer_activations
        )

    def __reduce__(self):
        """Pickle the components, the device's name and the parameters; no gradients."""
        target = self.target
        place = target.name, target.precision, target.fused
        params = target.to_host(self.params)
        return restored, (type(self), self._components(), place, params, self.deterministic)

    @abstractmethod
    def _components(self) -> dict[str, Any]:
        """Components of the model: arguments of its class, beside `rng` and `target`."""

    @property
    def deterministic(self) -> bool:
        """Whether gradients and losses are bitwise reproducible; may be set, see Trainer.

        On the CPU they always are.
        """
        return self.engine.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.engine.deterministic = check_bool("deterministic", value)

    @property
    def training_engine(self) -> Any:
        """Engine of trainers: passes from the inputs to the loss, and back."""
        return self.engine

    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of the parameters, in their order."""
        return {name: place.shape for name, place in self.composition.places.items()}

    def _named(self, flat: Any) -> dict[str, Any]:
        return {
            name: flat[place.start : place.stop].reshape(*place.shape)
            for name, place in self.composition.places.items()
        }

    @property
    def levels(self) -> tuple[GridLevel, ...]:
        """Levels of the grids, coarse to fine: views of their tables, sizes, resolutions."""
        return levels_of(self)

    @property
    def coarse_to_fine(self) -> CoarseToFine:
        """Passes with a max_level; raises TypeError without a grid."""
        if self._coarse_to_fine is None:
            given = self.target, self.composition, self.training_engine
            self._coarse_to_fine = CoarseToFine(*given)
        return self._coarse_to_fine

    def __call__(
        self,
        inputs: ArrayLike,
        params: ArrayLike | None = None,
        out: Array | None = None,
        max_level: ArrayLike | None = None,
    ) -> Array:
        """Evaluate the model: [n, n_input_dims] -> float32 [n, n_output_dims].

        Args:
            inputs: any real numbers, any batch size.
            params: use these instead of the model's own, float32 [n_params].
            out: a float32 array [n, n_output_dims], of the model's device, that receives the
                outputs and is returned; nothing is allocated then.
            max_level: up to which level grids are read, see Trainer.training_step.

        Raises:
            TypeError, ValueError: the arrays do not fit, or `out` shares memory with an input.
        """
        parameters, outputs = self.parameters, None
        recurring = self._inferences if params is max_level is None else None
        if recurring is not None:
            found = recurring.again(inputs, out, self.engine, parameters, self._evaluate)
            if found is not None:
                return found
        inputs = self.target.matrix(inputs, "inputs", self.n_input_dims)
        if params is not None:
            params = self.target.vector(params, "params", self.n_params)
        if out is not None:
            shape = inputs.shape[0], self.n_output_dims
            used = parameters.own if params is None else params
            outputs = self.target.output_apart(out, "out", shape, inputs=inputs, params=used)
        read = parameters.current() if params is None else parameters.converted(params)
        if recurring is not None:
            found = recurring.run(inputs, read, outputs, self.engine, self._evaluate)
        elif max_level is None:
            found = self._evaluate(inputs, read, outputs)
        else:
            found = self.coarse_to_fine.evaluate(inputs, max_level, read, outputs)
        return found if out is None else out

    def inference(
        self,
        inputs: ArrayLike,
        params: ArrayLike | None = None,
        out: Array | None = None,
        max_level: ArrayLike | None = None,
    ) -> Array:
        """Evaluate the model: a call by tiny-cuda-nn's name."""
        return self(inputs, params, out, max_level)

    def derivatives(
        self,
        inputs: ArrayLike,
        order: int = 2,
        *,
        wanted: str | None = None,
        params: ArrayLike | None = None,
        max_level: ArrayLike | None = None,
    ) -> Derivatives:
        """Outputs with their derivatives by the inputs, and a backward pass to the parameters.

        All is computed in float32, whatever the precision of the model.

        Args:
            inputs: [n, n_input_dims], any batch size.
            order: 1 for the Jacobian alone, 2 for second derivatives too.
            wanted: of these the "laplacian" (which is meant by None), the "diagonal", that is
                d2y/dx_d^2 for each input, or the "hessian".
            params: use these instead of the model's own, float32 [n_params].
            max_level: up to which level grids are read, see Trainer.training_step.

        Returns:
            Values, Jacobian and what is wanted, with `backward` for the gradient of the parameters.

        Raises:
            TypeError: the inputs do not fit, or a component has no such derivatives, as ReLU and
                grids with linear interpolation have none of order 2, or a part reads another one by
                an encoding; or there is a max_level, and no grid.
            ValueError: the inputs do not fit, or an option is not allowed.
        """
        jet = jet_for(self.composition, order, wanted)
        inputs = self._inputs(inputs)
        if params is None:
            own = self.parameters.master
        else:
            own = self.target.vector(params, "params", self.n_params)
        if max_level is not None:
            inputs = self.coarse_to_fine.inputs(inputs, max_level)
            engine = self.coarse_to_fine.derivative_engine
        else:
            if self._derivative_engine is None:
                self._derivative_engine = self.target.derivative_engine(self.composition)
            engine = self._derivative_engine
        own, n_outputs = self.parameters.in_float32(own), self.n_output_dims
        engine.deterministic = self.deterministic
        return derivatives_of(engine, self.target, jet, inputs, own, n_outputs, self._gradients_for)

    def __repr__(self) -> str:
        return summary_of(self).heading()

    def _repr_html_(self) -> str:
        return summary_of(self)._repr_html_()


def restored(
    kind: type, components: Mapping[str, Any], place: tuple, params: Any, deterministic: bool
) -> AbstractModel:
    """Model from a pickle, on the device of the same name; raises as target_for."""
    model = kind(rng=Pcg32(0), target=target_for(*place), **components)
    model.params, model.deterministic = params, deterministic
    return model
