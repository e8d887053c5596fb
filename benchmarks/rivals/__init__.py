"""Other frameworks doing the image job, each in one file that imports nothing of numbanet.

A method is a class built from a vector of initial parameters, with `place(array)` (hand an array
to the framework, not timed), `step(positions, targets)`, `inference(positions)`,
`wait(result)` (block until it is there), `numpy(outputs)` [n, 3],
`loss_and_gradients(positions, targets)`, `params()` and `versions()`. A class whose Adam also
moves grid entries without a gradient says `skips_zero_gradients = False`.
"""

RIVALS = {
    "jax": "rivals.jax_rival:Jax",
    "torch-eager": "rivals.torch_rival:TorchEager",
    "torch-compiled": "rivals.torch_rival:TorchCompiled",
    "drjit-tensors": "rivals.drjit_rival:DrJitTensors",
    "drjit-coopvec": "rivals.drjit_rival:DrJitCoopVec",
}
