"""Models of several parts, such as a density and the colour that reads it, with one vector of
parameters.
"""

from collections.abc import Mapping
from typing import Any

from numbanet.composed_engine import ComposedEngine
from numbanet.composition import Composition
from numbanet.composition_config import create_composition
from numbanet.engine import Batch, Gradients
from numbanet.model import AbstractModel
from numbanet.model_arguments import initial_rng
from numbanet.model_passes import Context
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.unknown_options import UnknownOptions


class ComposedModel(AbstractModel):
    """Model of encodings and networks that read each other; see create_composed_model.

    Args:
        composition: the components and their connections.
        rng: where the initial parameters come from.
        target: the device that it runs on.
    """

    __slots__ = ()

    def __init__(self, composition: Composition, rng: Pcg32, target: AbstractTarget):
        super().__init__(composition, rng, target)
        self.padded_output_dims = self.n_output_dims
        self.engine = ComposedEngine(target, composition)

    def _components(self):
        return {"composition": self.composition}

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.inference(inputs, params, outputs)

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        batch = Batch(context.inputs, external_dl_dy=dl_dy)
        self.engine.forward_backward(batch, context.params, None, gradients, dl_dx)


def create_composed_model(
    n_input_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
    fused: bool | None = None,
) -> ComposedModel:
    """Make a model of several parts from the sections "parts" and "outputs" of a config.

    A part is an encoding, a network, or both; it reads columns of the inputs and of parts before
    it. All parameters are one vector, so that one optimizer trains them; between parts it may have
    up to 7 zeros. docs/howto/compose.md has examples.

    Args:
        n_input_dims: width of the inputs, which parts read as "input".
        config: "parts", an object of parts by name, and "outputs"; other sections are not read.
        seed, device, precision, seed_convention, fused: see create_from_config.

    Raises:
        ConfigError: the config cannot be used; the message names the option.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    target = target_for(device, precision, fused)
    with UnknownOptions():
        composition = create_composition(n_input_dims, None, config)
    return ComposedModel(composition, initial_rng(seed, seed_convention), target)
