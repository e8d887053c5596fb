"""Methods that do the jobs, each in a file and a process of its own; rivals import no numbanet.

Names, and where the class of each is (`method.py` says what it has).
"""

_HERE = "benchmarks.methods"

NUMBANET = {"numbanet": f"{_HERE}.numbanet_cpu:Numbanet"}
NUMBANET_TORCH = {
    "module.loss": f"{_HERE}.numbanet_torch:ModuleLoss",
    "module, torch's loss": f"{_HERE}.numbanet_torch:Module",
}
CPU_RIVALS = {
    "jax": f"{_HERE}.jax_cpu:Jax",
    "torch-eager": f"{_HERE}.torch_cpu:TorchEager",
    "torch-compiled": f"{_HERE}.torch_cpu:TorchCompiled",
    "drjit-tensors": f"{_HERE}.drjit_cpu:DrJitTensors",
    "drjit-coopvec": f"{_HERE}.drjit_cpu:DrJitCoopVec",
}
NUMBANET_GPU = {
    "numbanet-fused": f"{_HERE}.numbanet_gpu:Fused",
    "numbanet-chain": f"{_HERE}.numbanet_gpu:Chain",
    "numbanet-float32": f"{_HERE}.numbanet_gpu:Float32",
}
GPU_RIVALS = {
    "tinycudann": f"{_HERE}.tinycudann_gpu:TinyCudaNN",
    "tinycudann-jit": f"{_HERE}.tinycudann_gpu:TinyCudaNNJit",
    "torch-eager": f"{_HERE}.torch_gpu:TorchEager",
    "torch-compiled": f"{_HERE}.torch_gpu:TorchCompiled",
    "jax": f"{_HERE}.jax_gpu:Jax",
    "drjit": f"{_HERE}.drjit_gpu:DrJit",
}
