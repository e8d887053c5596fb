"""Header of a snapshot as components: everything about its tensors but their numbers.

It is to be trusted as little as any other input. So sizes are computed from the components and
compared with the file's tensors before anything of these sizes is allocated.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.composition import Composition
from numbanet.composition_config import composition_config, create_composition
from numbanet.losses.base import AbstractLoss
from numbanet.model_arguments import check_dims, check_sigma
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.optimizers.limits import MOST_WEIGHT
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.quantization import LARGEST_CODE, packed_shapes, unpacked
from numbanet.registry import ConfigError
from numbanet.shown import shown
from numbanet.snapshot import OpenSnapshot, SnapshotError, check_finite, open_snapshot
from numbanet.unknown_options import UnknownOptions

SECTIONS = ("loss", "optimizer", "encoding", "network")
KINDS = SECTIONS, ("loss", "optimizer", "parts", "outputs")


@dataclass(frozen=True)
class SavedTraining:
    """Components, counters and metadata of a snapshot."""

    composition: Composition
    loss: AbstractLoss
    optimizer: AbstractOptimizer
    n_steps: int
    n_skipped_steps: int
    metadata: dict[str, Any]
    deterministic: bool = False
    perturbation_sigma: float = 0.0
    noise_state: int | None = None  # of the stream of random numbers of perturbed steps
    for_inference: bool = False  # it has the parameters for inference and no state of an optimizer

    @cached_property
    def layout(self) -> ParamLayout:
        return self.composition.layout

    @cached_property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.for_inference:
            return packed_shapes(self.composition.n_params, self.composition.quantized)
        return tensor_shapes(self.optimizer, self.layout)

    def check_numbers(
        self, name: str, tensors: Mapping[str, np.ndarray], allow_nonfinite: bool
    ) -> None:
        """Raise SnapshotError for numbers from which training would make infinities or NaN."""
        if allow_nonfinite:
            return
        check_finite(name, tensors)
        if self.for_inference:
            check_scales(name, tensors)
            return
        check_limits(name, self.optimizer, self.layout, tensors)

    def completed(self, tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Tensors of a training; where there is no state, of an optimizer at its start."""
        if not self.for_inference:
            return tensors
        params = unpacked(tensors, self.composition.n_params, self.composition.quantized)
        shapes = tensor_shapes(self.optimizer, self.layout)
        rest = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        state = self.optimizer.initial_state(params)
        return {**rest, "params": params, "optimizer.state": state}


def check_scales(name: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise SnapshotError for scales of tables that no quantization makes."""
    scales = tensors.get("scales", np.zeros(0, np.float32))
    n = np.count_nonzero((scales < 0) | (scales > MOST_WEIGHT / LARGEST_CODE))
    if n:
        raise SnapshotError(f"{name}: {n} scales of tables are negative, or too large")


def tensor_shapes(optimizer: AbstractOptimizer, layout: ParamLayout) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a snapshot."""
    shapes = {"params": (layout.n_params,)}
    for name, shape in optimizer.state_shapes(layout).items():
        if name == "state" or 0 not in shape:
            shapes[f"optimizer.{name}"] = shape
    return shapes


def meaning_of_state(optimizer: AbstractOptimizer, layout: ParamLayout) -> tuple:
    """Key that is equal for optimizers that can take over each other's state.

    Raises:
        ConfigError: the optimizer does not fit the layout.
    """
    shapes, ranges = optimizer.state_shapes(layout), optimizer.matrix_ranges(layout)
    return optimizer.structure, shapes, ranges, optimizer.inference_row


def check_limits(
    name: str, optimizer: AbstractOptimizer, layout: ParamLayout, tensors: Mapping[str, np.ndarray]
) -> None:
    """Raise SnapshotError unless the finite numbers of a state are in the optimizer's limits."""
    state, matrices, statistics = (
        tensors.get(f"optimizer.{part}", np.zeros(shape, np.float32))
        for part, shape in optimizer.state_shapes(layout).items()
    )
    weights = (
        ("averages or copies of weights", state[row, first:last], -MOST_WEIGHT, MOST_WEIGHT)
        for row, first, last in optimizer.weight_rows(layout.n_params)
    )
    limits = optimizer.limits(layout, state, matrices, statistics)
    for what, numbers, least, most in chain(weights, limits):
        n = np.count_nonzero((numbers < least) | (numbers > most))
        if n:
            raise SnapshotError(
                f"{name}: {n} {what} of the optimizer are below {least:g} or above {most:g}, where "
                "no training leads; allow_nonfinite=True takes them as they are"
            )


def config_of(
    composition: Composition, loss: AbstractLoss, optimizer: AbstractOptimizer,
    deterministic: bool = False, perturbation_sigma: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """JSON config of all components, with every option written out."""
    sections = {"loss": registry.to_config(loss), "optimizer": registry.to_config(optimizer)}
    if composition.is_named:
        sections |= composition_config(composition)
    else:
        (part,) = composition.parts
        sections["encoding"] = registry.to_config(part.encoding)
        sections["network"] = part.network and registry.to_config(part.network)
    if deterministic:
        sections["deterministic"] = True
    if perturbation_sigma:
        sections["perturbation_sigma"] = perturbation_sigma
    return sections


def composition_of(
    n_input_dims: int, n_output_dims: int | None, config: Mapping[str, Any]
) -> Composition:
    """Composition of a config: of its parts, or of an encoding and a network.

    Args:
        n_output_dims: None where the config says how many there are.

    Raises:
        ConfigError, ValueError: it cannot be used.
    """
    if config.get("parts") is not None:
        for section in ("encoding", "network"):
            if config.get(section) is not None:
                raise ConfigError(f"{section}: a config with parts has it in these alone")
        return create_composition(n_input_dims, n_output_dims, config)
    if config.get("outputs") is not None:
        raise ConfigError(
            "outputs: they are columns of parts, and there are no parts; leave it out"
        )
    encoding = create_encoding_component(n_input_dims, config.get("encoding", {}))
    if "network" in config and config["network"] is None:
        n, alignment = encoding.n_outputs, encoding.required_output_alignment
        is_whole = n_output_dims is None or n == n_output_dims == 0  # 0 is that of Empty
        width = n if is_whole else check_dims("n_output_dims", n_output_dims)
        if width < n or (width > n and (n == 0 or width % alignment)):
            raise ConfigError(
                f"network: null leaves the encoding, which has {n} features; n_output_dims is "
                f"{shown(n_output_dims)}, to which they cannot be padded"
            )
        return Composition.of(encoding, None, width)
    if n_output_dims is None:
        raise ConfigError("n_output_dims: None is allowed only for parts and encodings alone")
    network = create_network_component(encoding, n_output_dims, config.get("network", {}))
    return Composition.of(encoding, network)


@contextmanager
def open_saved_training(path: str | os.PathLike) -> Iterator[tuple[SavedTraining, OpenSnapshot]]:
    """Open a snapshot: its description, and the open file with its tensors.

    Raises:
        SnapshotError: the file is damaged, something else, or says what is not allowed.
        OSError: the file cannot be read.
    """
    with open_snapshot(path) as file:
        try:
            with UnknownOptions():
                saved = _described(file.header)
            _ = saved.tensor_shapes  # fails where the optimizer does not fit the parameters
        except Exception as error:  # components may fail in any way on unchecked input
            raise SnapshotError(
                f"{file.name}: the snapshot cannot be used ({error!s:.200})"
            ) from error
        yield saved, file


def _described(header: Mapping[str, Any]) -> SavedTraining:
    if "kind" in header:  # a job's own
        raise SnapshotError(
            f"it holds what {shown(header['kind'])} trains, which is more than one model; "
            "numbanet.app.fields.loading.load_field loads fields"
        )
    for key in ("n_input_dims", "n_output_dims", "config", "n_steps", "n_skipped_steps"):
        if key not in header:
            raise SnapshotError(f"its header lacks {key}")
    config, counts = header["config"], (header["n_steps"], header["n_skipped_steps"])
    if not (isinstance(config, Mapping) and any(config.keys() >= set(each) for each in KINDS)):
        raise SnapshotError(f"config: expected an object with {', '.join(SECTIONS)}, or with parts")
    if not all(type(count) is int and 0 <= count <= MOST_STEPS for count in counts):
        raise SnapshotError(f"n_steps, n_skipped_steps: expected integers from 0 to {MOST_STEPS}")
    deterministic = config.get("deterministic", False)
    if not isinstance(deterministic, bool):
        raise SnapshotError("deterministic: expected true or false")
    if not isinstance(header.get("metadata"), dict):
        raise SnapshotError("metadata: expected an object")
    composition = composition_of(header["n_input_dims"], header["n_output_dims"], config)
    loss = registry.create("loss", config["loss"], default="RelativeL2")
    loss.row(composition.n_output_dims, False)  # raises if it cannot take so many outputs
    optimizer = registry.create("optimizer", config["optimizer"], default="Adam")
    for_inference = header.get("for_inference", False)
    if not isinstance(for_inference, bool):
        raise SnapshotError("for_inference: expected true or false")
    sigma, state = check_sigma(config.get("perturbation_sigma", 0.0)), header.get("noise_state")
    if state is not None and not (type(state) is int and 0 <= state < 2**64):
        raise SnapshotError("noise_state: expected an integer from 0 to 2^64 - 1")
    more = header["metadata"], deterministic, sigma, state, for_inference
    return SavedTraining(composition, loss, optimizer, *counts, *more)
