"""The methods of the GPU benchmarks, each in a process of its own; the rivals import no numbanet.

A method is a class built from a job (gpu_jobs.py) and a vector of initial parameters, with
`place(array)` (hand an array to the framework, not timed), `step(inputs, targets)`, which returns
the loss before it, `inference(inputs)`, `wait(result)` (block until it is there),
`numpy(outputs)` and `versions()`. It says its `precision`, and the `stream` on which it queues its
work, or None if that cannot be known. A class whose Adam leaves grid entries without a gradient
alone says `skips_zero_gradients = True`; one whose losses float() does not take has `number(loss)`.
"""

OWN = {
    "numbanet-fused": "gpu_methods.numbanet_gpu:Fused",
    "numbanet-chain": "gpu_methods.numbanet_gpu:Chain",
    "numbanet-float32": "gpu_methods.numbanet_gpu:Float32",
}
RIVALS = {
    "tinycudann": "gpu_methods.tinycudann_gpu:TinyCudaNN",
    "tinycudann-jit": "gpu_methods.tinycudann_gpu:TinyCudaNNJit",
    "torch-eager": "gpu_methods.torch_gpu:TorchEager",
    "torch-compiled": "gpu_methods.torch_gpu:TorchCompiled",
    "jax": "gpu_methods.jax_gpu:Jax",
    "drjit": "gpu_methods.drjit_gpu:DrJit",
}
