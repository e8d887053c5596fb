"""Construction of models and their components from JSON configs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet.encoding_model import Encoding
from numbanet.encodings.identity import Identity
from numbanet.model_arguments import MOST_DIMS, check_dims, initial_rng
from numbanet.network_with_input_encoding import Network, NetworkWithInputEncoding
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.shown import shown
from numbanet.targets import target_for
from numbanet.unknown_options import UnknownOptions


def create_encoding(
    n_input_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    alignment: int = 0,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
) -> Encoding:
    """Make an encoding from its JSON config.

    Raises:
        ConfigError: the config cannot be used.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    target = target_for(device, precision)
    component = create_encoding_component(n_input_dims, config)
    is_integer = isinstance(alignment, (int, np.integer)) and not isinstance(alignment, bool)
    if not (is_integer and 0 <= alignment <= MOST_DIMS):
        raise ValueError(
            f"alignment: {shown(alignment)} is not allowed; use an integer from 0 to {MOST_DIMS}"
        )
    return Encoding(component, initial_rng(seed, seed_convention), target, int(alignment))


def create_network(
    n_input_dims: int,
    n_output_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
) -> Network:
    """Make a network without encoding from its JSON config; raises as create_encoding."""
    target = target_for(device, precision)
    encoding = Identity(n_dims=check_dims("n_input_dims", n_input_dims))
    network = create_network_component(encoding, n_output_dims, config)
    return Network(encoding, network, initial_rng(seed, seed_convention), target)


def create_network_with_input_encoding(
    n_input_dims: int,
    n_output_dims: int,
    encoding_config: Mapping[str, Any],
    network_config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
    fused: bool | None = None,
) -> NetworkWithInputEncoding:
    """Make an encoding with a network from their JSON configs; raises as create_encoding.

    For `fused` see create_from_config.
    """
    target = target_for(device, precision, fused)
    with UnknownOptions():
        encoding = create_encoding_component(n_input_dims, encoding_config)
        network = create_network_component(encoding, n_output_dims, network_config)
    return NetworkWithInputEncoding(encoding, network, initial_rng(seed, seed_convention), target)
