"""Encodings and networks from their configs, with matching sizes."""

import math
from collections.abc import Mapping
from typing import Any

from numbanet import registry
from numbanet.encodings.base import AbstractEncoding
from numbanet.model_arguments import check_dims
from numbanet.networks.base import ALIGNMENT, AbstractMLP, next_multiple


def padded_encoding_width(encoding: AbstractEncoding, alignment: int) -> int:
    """Width of an encoding's output after padding, as tiny-cuda-nn pads."""
    divisor = math.lcm(alignment, encoding.required_output_alignment)
    return next_multiple(encoding.n_outputs, divisor)


def create_encoding_component(
    n_input_dims: int, config: Mapping[str, Any], path: str = ""
) -> AbstractEncoding:
    """Encoding of a config, for inputs of n_input_dims."""
    n_dims = check_dims("n_input_dims", n_input_dims)
    return registry.create("encoding", config, default="OneBlob", path=path, n_dims=n_dims)


def create_network_component(
    encoding: AbstractEncoding, n_output_dims: int, config: Mapping[str, Any], path: str = ""
) -> AbstractMLP:
    """Network of a config, for the padded features of an encoding."""
    n_features = padded_encoding_width(encoding, ALIGNMENT)
    if n_features == 0:
        raise registry.ConfigError(
            f"{path.removesuffix('network')}encoding: {type(encoding).__name__} has no features "
            "for a network"
        )
    return registry.create(
        "network",
        config,
        default="MLP",
        path=path,
        n_input_dims=n_features,
        n_output_dims=check_dims("n_output_dims", n_output_dims),
    )
