"""Description of a model in PyTorch: JSON text in which every option is written out."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.composition import Composition
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.identity import Identity
from numbanet.leveled_composition import has_grid, leveled
from numbanet.model_arguments import initial_rng
from numbanet.networks.base import AbstractMLP
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.quantization import Quantized
from numbanet.unknown_options import UnknownOptions

ABSENT = object()  # for a missing component; distinct from None by mistake


def describe(
    n_input_dims: int,
    n_output_dims: int | object,
    encoding_config: Mapping[str, Any] | object,
    network_config: Mapping[str, Any] | None,
) -> str:
    """Description of a model: JSON text in which every option is written out.

    Args:
        n_input_dims: width of the inputs.
        n_output_dims: width of the network's outputs; ABSENT without a network.
        encoding_config: ABSENT for a network by itself.
        network_config: not read for an encoding by itself.

    Raises:
        ConfigError: a config cannot be used.
        ValueError: a width cannot.
    """
    has_encoding = encoding_config is not ABSENT
    read = encoding_config if has_encoding else {"otype": "Identity"}
    with UnknownOptions():
        encoding = create_encoding_component(n_input_dims, read)
        network, n_outputs = None, encoding.n_outputs
        if n_output_dims is not ABSENT:
            network = create_network_component(encoding, n_output_dims, network_config)
            n_outputs = network.n_output_dims
    sizes = {"n_input_dims": encoding.n_dims, "n_output_dims": n_outputs}
    configs = {"encoding": registry.to_config(encoding) if has_encoding else None}
    configs["network"] = network and registry.to_config(network)
    return json.dumps(sizes | configs)


@cache
def with_levels(description: str) -> str:
    """Description of the same model with a max_level as one more input, the last one.

    Raises:
        TypeError: it has no grid.
    """
    if not has_grid(components(description)[0]):
        raise TypeError("max_level: the module has no grid; leave it out")
    return json.dumps(json.loads(description) | {"has_levels": True})


@cache
def sizes(description: str) -> tuple[int, int]:
    """Number of inputs and of outputs."""
    read = json.loads(description)
    return read["n_input_dims"] + read.get("has_levels", False), read["n_output_dims"]


@cache
def components(description: str) -> tuple[AbstractEncoding, AbstractMLP | None]:
    """Encoding and, if there is one, network."""
    read = json.loads(description)
    n_input_dims, n_output_dims = read["n_input_dims"], read["n_output_dims"]
    if read["encoding"] is None:
        encoding = Identity(n_dims=n_input_dims)
    else:
        encoding = create_encoding_component(n_input_dims, read["encoding"])
    network = None
    if read["network"] is not None:
        network = create_network_component(encoding, n_output_dims, read["network"])
    if read.get("has_levels", False):
        width = encoding.n_outputs if network is None else network.n_input_dims
        encoding = leveled(encoding.padded(width), n_input_dims + 1)
    return encoding, network


def quantized(description: str) -> tuple[Quantized, ...]:
    """Parameters that kernels read in few bits, with a max_level and without."""
    read = json.loads(description)
    read.pop("has_levels", None)
    return Composition.of(*components(json.dumps(read))).quantized


def n_kept(description: str, where: str) -> int:
    """Numbers per sample that a forward pass can keep, on the "cpu" or elsewhere.

    These are the features that the network reads, and on the CPU alone.
    """
    _, network = components(description)
    return 0 if network is None or where != "cpu" else network.n_input_dims


def n_params(description: str) -> int:
    """Length of the parameter vector."""
    return sum(part.n_params for part in components(description) if part is not None)


def initial_params(description: str, seed: int) -> np.ndarray:
    """Initial parameters of tinycudann's bindings: float32, the network's part first."""
    rng = initial_rng(seed, "bindings")
    encoding, network = components(description)
    parts = [] if network is None else [network.initial_params(rng)]
    return np.concatenate([*parts, encoding.initial_params(rng)]).astype(np.float32, copy=False)
