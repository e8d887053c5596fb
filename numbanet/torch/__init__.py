"""tinycudann's PyTorch interface: `import numbanet.torch as tcnn`."""

from numbanet.cpu import launch as _launch  # noqa: F401 (before PyTorch: how OpenMP waits)
from numbanet.torch import matrices as _matrices  # noqa: F401 (for numbanet.to_matrices)
from numbanet.torch.bindings import rtc_set_cache_dir as rtc_set_cache_dir
from numbanet.torch.bindings import supports_jit_fusion as supports_jit_fusion
from numbanet.torch.drop_in import install_as_tinycudann as install_as_tinycudann
from numbanet.torch.evaluator import free_temporary_memory as free_temporary_memory
from numbanet.torch.modules import Encoding as Encoding
from numbanet.torch.modules import Module as Module
from numbanet.torch.modules import Network as Network
from numbanet.torch.modules import NetworkWithInputEncoding as NetworkWithInputEncoding
