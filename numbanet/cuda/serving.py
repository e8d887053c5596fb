"""Explanation of which kernels serve a model, from the predicates that decide it."""

from typing import Any

from numbanet.architecture import AMPERE, reaches
from numbanet.cuda.block.layout import MOST_HIDDEN, FusedLayout, takes_network
from numbanet.engine import Service

CHAIN = "chain of kernels, layer by layer"


def why_never(device: Any, precision: str, fused: bool | None) -> str | None:
    """Reason why no model on such a device has fused kernels; None if some do."""
    if precision == "float32":
        return "float32 has no fused kernels"
    if not reaches(device, AMPERE):
        return "fused kernels need compute capability 8.0"
    return "fused=False asks for it" if fused is False else None


def why_not(layout: FusedLayout, most_shared: int) -> str:
    """Reason why a network has no fused kernel of this layout."""
    if layout.model.network.n_hidden_layers == 0:
        return "fused kernels need a hidden layer"
    if layout.model.network.bias:
        return "no fused kernel adds biases"
    if not takes_network(layout):
        widths = ", ".join(map(str, layout.widths))
        return f"fused kernels take multiples of 16 up to {MOST_HIDDEN}; widths are {widths}"
    if layout.shared_bytes > most_shared:
        return f"a fused kernel needs {layout.shared_bytes} bytes of shared memory of {most_shared}"
    if layout.trains and layout.model.network.activations[0].from_input:
        name = layout.model.network.activations[0].name
        return f"{name} is differentiated at its input, which one fused kernel does not keep"
    return "its gradients of weights do not fit the registers of one kernel"


def services(
    device: Any, precision: str, fused: Any, wide: Any, asked: bool | None
) -> list[Service]:
    """Services of a model with these engines; None stands for an engine that it lacks."""
    second = Service("second derivatives", CHAIN, "there are no fused kernels for them")
    never = why_never(device, precision, asked)
    if never is not None:
        return [Service("inference, training", CHAIN, never), second]
    most = device.max_shared_bytes
    infers, trains = fused.inference_shape.layout, fused.training_shape.layout
    one = "fits registers and shared memory of a block"
    if fused.most_inferred >= 1:
        inference = Service("inference", "one fused kernel", one)
    else:
        inference = Service("inference", CHAIN, why_not(infers, most))
    if fused.can_train(1):
        training = Service("training", "one fused kernel", one)
    elif wide.can_train:
        training = Service("training", "two fused kernels", why_not(trains, most))
    else:
        training = Service("training", CHAIN, why_not(trains, most))
    return [inference, training, second]
