"""What a summary says of the kernels that serve a model is what the engine takes."""

import pytest
from models import MODELS, make_config, mlp

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.serving import CHAIN

HOPPER, TURING = CompileOnlyDevice((9, 0), False), CompileOnlyDevice((7, 5), False)

IDENTITY = {"otype": "Identity"}
OTHERS = {
    "swish": make_config(IDENTITY, mlp("FullyFusedMLP", 64, 2, "SiLU")),
    "deep": make_config(IDENTITY, mlp("FullyFusedMLP", 128, 8)),
}


@pytest.mark.parametrize(
    ("name", "device", "options", "reasons"),
    [
        ("hash", HOPPER, {}, ["fits", "fits"]),
        ("hash", HOPPER, {"precision": "float32"}, ["float32 has no fused kernels"]),
        ("hash", HOPPER, {"fused": False}, ["fused=False asks for it"]),
        ("hash", TURING, {}, ["compute capability 8.0"]),
        ("identity", HOPPER, {}, ["multiples of 16 up to 128; widths are 16, 100"] * 2),
        ("biased", HOPPER, {}, ["no fused kernel adds biases"] * 2),
        ("linear", HOPPER, {}, ["need a hidden layer"] * 2),
        ("wide", HOPPER, {}, ["fits", "fits"]),
        ("swish", HOPPER, {}, ["fits", "SiLU is differentiated at its input"]),
        ("deep", HOPPER, {}, ["fits", "bytes of shared memory of 232448"]),
    ],
)
def test_the_summary_says_which_kernels_serve_and_why(name, device, options, reasons):
    n_input_dims, n_output_dims, config = MODELS.get(name) or (2, 3, OTHERS[name])
    options = {"precision": "float16", **options}
    model = numbanet.create_from_config(
        n_input_dims, n_output_dims, config, device=device, **options
    )
    engine, found = model.network.engine, numbanet.summary(model).services
    assert found[-1].passes == "second derivatives"
    assert len(found) == len(reasons) + 1
    for service, reason in zip(found, reasons, strict=False):
        assert reason in service.reason
    infers, trains = found[0], found[len(reasons) - 1]
    assert (infers.engine == CHAIN) == (engine._for_inference(1) is engine.chain)
    serving = engine._for_training(1)
    names = {
        engine.chain: CHAIN,
        engine.fused: "one fused kernel",
        engine.wide: "two fused kernels",
    }
    assert trains.engine == names[serving]
