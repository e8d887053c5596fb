"""The sample configs on images as jobs for a GPU, whose kernels are looked at one by one."""

import numpy as np

import numbanet
from benchmarks.harness.samples import sample
from numbanet.cuda.target import CudaTarget
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.random import Pcg32

CAPABILITY, PRECISION = (9, 0), "float16"
DIMS = (2, 3)  # of images
N_SAMPLES = 1024
GRADIENT, CHAIN = "gradient of the inputs", "gradient of the inputs by the chain"  # passes


def passes(model):
    """The parts of a job; each kernel is counted in the first one of these that launches it."""
    rng = np.random.default_rng(0)
    x = rng.random((N_SAMPLES, model.network.n_input_dims), np.float32)
    y = rng.random((N_SAMPLES, model.network.n_output_dims), np.float32)
    yield "training step", lambda: model.trainer.training_step(x, y)
    yield "inference", lambda: model(x)
    yield GRADIENT, lambda: model.input_gradient(0, x)
    chain = chain_of(model.network)
    yield CHAIN, lambda: chain.input_gradient(0, x)


def chain_of(network):
    """The same components, not fused."""
    target = CudaTarget(network.target.device, PRECISION, fused=False)
    rng = Pcg32(1337)
    return NetworkWithInputEncoding(network.encoding, network.network, rng, target)


def create(name: str, device):
    return numbanet.create_from_config(*DIMS, sample(name), device=device, precision=PRECISION)
