"""Networks; importing this package registers them."""

from numbanet.networks.cutlass_mlp import CutlassMLP as CutlassMLP
from numbanet.networks.fully_fused_mlp import FullyFusedMLP as FullyFusedMLP
