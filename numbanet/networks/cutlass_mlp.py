"""CutlassMLP: a multi-layer perceptron of any width and depth, the default network."""

from dataclasses import dataclass

from numbanet.networks.base import AbstractMLP, activation_option
from numbanet.registry import check, derived, register


@register("network", "CutlassMLP", "MLP")
@dataclass(frozen=True)
class CutlassMLP(AbstractMLP):
    """MLP of any width and depth; without hidden layers it is one matrix and the output activation.

    Which kernels run does not depend on the otype: see FullyFusedMLP.
    """

    n_input_dims: int = derived()
    n_output_dims: int = derived()
    n_neurons: int = 128
    n_hidden_layers: int = 5
    activation: str = activation_option("ReLU")
    output_activation: str = activation_option("None")
    bias: bool = False  # add a vector to what each matrix makes; tiny-cuda-nn has none
    siren_omega: float = 30.0  # with Sine: initial frequencies of the first layer
    siren_first_scale: float = 1.0  # with Sine: first weights are within omega scale / fan in
    activations: tuple = derived(init=False, repr=False)

    def __post_init__(self):
        for option in ("n_input_dims", "n_output_dims", "n_neurons"):
            value = getattr(self, option)
            check(value > 0, option, value, "a positive number")
        check(self.n_hidden_layers >= 0, "n_hidden_layers", self.n_hidden_layers, "0 or more")
        self._check_sizes()
        self._check_siren()
        self._resolve_activations()
