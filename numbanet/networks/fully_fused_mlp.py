"""FullyFusedMLP: a multi-layer perceptron as narrow as a fused kernel can hold.

Mueller et al. 2021, Real-time Neural Radiance Caching for Path Tracing.
"""

from dataclasses import dataclass

from numbanet.networks.base import ALIGNMENT, AbstractMLP, activation_option
from numbanet.registry import check, derived, register

MOST_NEURONS = 128


@register("network", "FullyFusedMLP", "MegakernelMLP")
@dataclass(frozen=True)
class FullyFusedMLP(AbstractMLP):
    """MLP whose hidden layers are a multiple of 16 wide, up to 128.

    The otype asks for nothing more than such widths: a CutlassMLP that has them runs in the same
    kernels.
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
        aligned = self.n_input_dims > 0 and self.n_input_dims % ALIGNMENT == 0
        check(aligned, "n_input_dims", self.n_input_dims, f"a positive multiple of {ALIGNMENT}")
        check(self.n_output_dims > 0, "n_output_dims", self.n_output_dims, "a positive number")
        fits = 0 < self.n_neurons <= MOST_NEURONS and self.n_neurons % ALIGNMENT == 0
        other = (
            f"a multiple of {ALIGNMENT} up to {MOST_NEURONS}, or the otype CutlassMLP, which takes "
            "any width"
        )
        check(fits, "n_neurons", self.n_neurons, other)
        other = "a positive number, or the otype CutlassMLP, which takes 0 too"
        check(self.n_hidden_layers > 0, "n_hidden_layers", self.n_hidden_layers, other)
        self._check_sizes()
        self._check_siren()
        self._resolve_activations()
