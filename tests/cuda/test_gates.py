"""What no kernel may have: float64, local memory, calls, spills.

The PTX of every component and of the standard models is read for the oldest architecture and for
sm_90, between which our code differs; the kernels of the sample configs are assembled for all.
"""

import re
from collections import Counter
from pathlib import Path

import laws
import models
import numpy as np
import pytest
from stand_in_engine import StandInEngine

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet
from numbanet.app.compile_kernels import run_everything, train_once
from numbanet.cuda.chain.loss_kernels import loss_kernel
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.target import CudaTarget
from numbanet.engine import Batch
from numbanet.optimizers.base import ParamLayout

CONFIGS = Path(__file__).parents[2] / "samples" / "configs"
SAMPLES = "config_hash", "config_oneblob"
TURING, HOPPER = (7, 5), (9, 0)
# Turing adds up gradients in bfloat16, for which it has no instruction; Hopper in pairs of float32.
TARGETS = [(TURING, "bfloat16"), (HOPPER, "float16")]
# Precisions take turns, since code differs with the precision or the architecture, not with both.
ASSEMBLED = [
    *((TURING, "float16"), (TURING, "bfloat16"), (TURING, "float32")),
    *(((8, 0), "float16"), ((8, 0), "bfloat16"), ((8, 6), "float16"), ((8, 9), "bfloat16")),
    *((HOPPER, "float16"), (HOPPER, "bfloat16"), (HOPPER, "float32")),
    *(((10, 0), "float16"), ((12, 0), "float16")),
]
# One of each generation, for kernels of all variants; elsewhere for those of a step and inference.
IN_FULL = {(TURING, "float16"), ((8, 0), "bfloat16"), (HOPPER, "float16")}
FUSED = None, False  # where possible, and the chain of kernels
UNWANTED = {"float64": r"\.f64\b", "local memory": r"\.local\b", "a call": r"\bcall\b"}

# (encoding, dimensions, kernel, what it has): why
EXCEPTIONS = {
    ("Grid", 4, "Grid_double_backward_input", "local memory"): "4 x 4 x 16 products of 4 factors "
    "each are not written out, so the factors are indexed while the kernel runs",
}

# (kernel, major compute capability): bytes that are spilled, once for 32 samples
SPILLED = {
    ("wide_training_to_inputs_OneBlob_bfloat16", 8): 8,
    ("network_backward_to_features_64_ReLU_float32", 9): 8,
}


def sm(value):
    return "sm_{}{}".format(*value) if isinstance(value, tuple) else str(value)


on_targets = pytest.mark.parametrize(("capability", "precision"), TARGETS, ids=sm)


def found_in(device):
    """(kernel, what): all that is unwanted."""
    assert device.kernels
    return {
        (kernel.name, what)
        for kernel in device.kernels
        for what, pattern in UNWANTED.items()
        if re.search(pattern, kernel.ptx.text)
    }


def examples(kind):
    return [
        pytest.param(name, {"otype": name, **config}, sizes, id=f"{name}{k}")
        for k, (name, config, sizes) in enumerate(laws.examples(kind))
    ]


def in_turn(kind):
    """All examples of a kind: the first of each component on all targets, which take turns then.

    Without parameters the code is the same on all, but for conversions that the others have too.
    """
    cases, targets, n_seen = [], {}, Counter()
    for k, (name, config, sizes) in enumerate(laws.examples(kind)):
        component = laws.create(kind, name, config, sizes)
        if component not in targets:
            n = n_seen[type(component)]
            n_seen[type(component)] += 1
            in_turn = TARGETS if n == 0 else [TARGETS[n % 2]]
            targets[component] = in_turn if component.n_params else TARGETS[-1:]
        for capability, precision in targets[component]:
            case = capability, precision, {"otype": name, **config}, sizes
            cases.append(pytest.param(*case, id=f"{name}{k}-{sm(capability)}-{precision}"))
    return pytest.mark.parametrize(("capability", "precision", "config", "sizes"), cases)


@in_turn("encoding")
def test_encodings(capability, precision, config, sizes):
    device, n_dims = CompileOnlyDevice(capability, assembles=False), sizes["n_dims"]
    name, options = config["otype"], {"device": device, "precision": precision, "alignment": 16}
    encoding = numbanet.create_encoding(n_dims, config, **options)
    x = np.zeros((5, n_dims), np.float32)
    y, context = encoding.forward(x)
    encoding.backward(context, y)
    encoding.double_backward(context, y, x)
    assert {key for key in found_in(device) if (name, n_dims, *key) not in EXCEPTIONS} == set()


@in_turn("network")
def test_networks(capability, precision, config, sizes):
    device = CompileOnlyDevice(capability, assembles=False)
    dims = sizes["n_input_dims"], sizes["n_output_dims"]
    network = numbanet.create_network(*dims, config, device=device, precision=precision)
    x = np.zeros((5, dims[0]), np.float32)
    y, context = network.forward(x)
    network.backward(context, y)
    assert found_in(device) == set()


@on_targets
@pytest.mark.parametrize(("name", "config", "sizes"), examples("loss"))
def test_losses(name, config, sizes, capability, precision):
    device = CompileOnlyDevice(capability, assembles=False)
    loss = numbanet.create_loss(config)
    for has_pdf in (False, True):
        Kernel(device, loss_kernel(loss, 3, has_pdf, precision))
    assert found_in(device) == set()


@pytest.mark.parametrize(("name", "config", "sizes"), examples("optimizer"))
def test_optimizers(name, config, sizes):
    """Beside an engine that does nothing, for parameters that fit all examples.

    On one target: all is float32 but the copy of the parameters, which the models test on both.
    """
    capability, precision = TARGETS[-1]
    device = CompileOnlyDevice(capability, assembles=False)
    target, optimizer = CudaTarget(device, precision), numbanet.create_optimizer(config)
    engine = StandInEngine(target.empty(1), precision)
    layout = ParamLayout(60, ((4, 8), (2, 4)))
    parameters = target.parameters(np.zeros(60, np.float32), layout.n_matrix_params)
    training = target.training(engine, parameters, optimizer, layout)
    gradients = target.gradients(60, layout.n_matrix_params)
    batch = Batch(target.empty(5, 1))
    training.step(
        batch, parameters.current(), None, optimizer, gradients, None, overwrite=False,
        run_optimizer=True,
    )  # fmt: skip
    assert found_in(device) == set()


@pytest.mark.parametrize(
    ("name", "capability", "precision"),
    [
        *((name, *TARGETS[k % 2]) for k, name in enumerate(models.MODELS)),
        *(("hash", *TARGETS[1]), ("smooth", *TARGETS[0]), ("usual", *TARGETS[1])),
    ],
    ids=sm,
)
def test_models(name, capability, precision):
    device = CompileOnlyDevice(capability, assembles=False)
    for fused in FUSED:
        run_everything(models.create(name, device=device, precision=precision, fused=fused), 5)
    assert found_in(device) == set()


@pytest.mark.parametrize(("capability", "precision"), ASSEMBLED, ids=sm)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.usefixtures("current_assembler")
def test_machine_code(name, capability, precision):
    config = numbanet.load_config(CONFIGS / f"{name}.json")
    device, in_full = CompileOnlyDevice(capability), (capability, precision) in IN_FULL
    for fused in FUSED if in_full else FUSED[:1]:
        options = {"device": device, "precision": precision, "fused": fused}
        model = numbanet.create_from_config(2, 3, config, **options)
        (run_everything if in_full else train_once)(model, 1000)
    assert found_in(device) == set()
    for kernel in device.kernels:
        used = kernel.cubin.resources
        allowed = SPILLED.get((kernel.name, capability[0]), 0)
        assert max(used.spill_stores, used.local_bytes) <= allowed, kernel.name
        assert used.spill_loads <= 2 * allowed, kernel.name
        assert kernel.cubin.n_instructions > 0


def test_what_is_unwanted_is_found():
    """Patterns that match nothing would let everything pass."""
    text = ".local .b8 depot[8];\nadd.f64 %fd1, %fd2, %fd3;\ncall.uni (r), f, (p);"
    assert all(re.search(pattern, text) for pattern in UNWANTED.values())
