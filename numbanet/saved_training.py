"""What the header of a snapshot says, as components: all about its tensors but their numbers.

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
from numbanet.create_model import create_encoding_component, create_network_component
from numbanet.encodings.base import AbstractEncoding
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import AbstractMLP
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.optimizers.limits import MOST_WEIGHT
from numbanet.snapshot import OpenSnapshot, SnapshotError, check_finite, open_snapshot
from numbanet.unknown_options import UnknownOptions

SECTIONS = ("loss", "optimizer", "encoding", "network")


@dataclass(frozen=True)
class SavedTraining:
    """The components, counters and metadata of a snapshot."""

    encoding: AbstractEncoding
    network: AbstractMLP
    loss: AbstractLoss
    optimizer: AbstractOptimizer
    n_steps: int
    n_skipped_steps: int
    metadata: dict[str, Any]
    deterministic: bool = False

    @cached_property
    def layout(self) -> ParamLayout:
        return ParamLayout(self.network.n_params + self.encoding.n_params, self.network.shapes)

    @cached_property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        return tensor_shapes(self.optimizer, self.layout)

    def check_numbers(
        self, name: str, tensors: Mapping[str, np.ndarray], allow_nonfinite: bool
    ) -> None:
        """Raise SnapshotError for numbers of which training would make infinite ones or NaN."""
        if allow_nonfinite:
            return
        check_finite(name, tensors)
        check_limits(name, self.optimizer, self.layout, tensors)


def tensor_shapes(optimizer: AbstractOptimizer, layout: ParamLayout) -> dict[str, tuple[int, ...]]:
    """The tensors of a snapshot: name and shape."""
    shapes = {"params": (layout.n_params,)}
    for name, shape in optimizer.state_shapes(layout).items():
        if name == "state" or 0 not in shape:
            shapes[f"optimizer.{name}"] = shape
    return shapes


def meaning_of_state(optimizer: AbstractOptimizer, layout: ParamLayout) -> tuple:
    """What is equal for optimizers that can take over each other's state.

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


def config_of(encoding, network, loss, optimizer, deterministic=False) -> dict[str, Any]:
    """The JSON config of all components, with every option written out."""
    parts = (loss, optimizer, encoding, network)
    sections = dict(zip(SECTIONS, map(registry.to_config, parts), strict=True))
    return {**sections, "deterministic": True} if deterministic else sections


@contextmanager
def open_saved_training(path: str | os.PathLike) -> Iterator[tuple[SavedTraining, OpenSnapshot]]:
    """What a snapshot says, and the open snapshot with its tensors.

    Raises:
        SnapshotError: the file is damaged, something else, or says what is not allowed.
        OSError: the file cannot be read.
    """
    with open_snapshot(path) as file:
        try:
            with UnknownOptions():
                saved = _described(file.header)
            _ = saved.tensor_shapes  # fails where the optimizer does not fit the parameters
        except Exception as error:  # components may fail in any way on what nobody checked
            raise SnapshotError(
                f"{file.name}: the snapshot cannot be used ({error!s:.200})"
            ) from error
        yield saved, file


def _described(header: Mapping[str, Any]) -> SavedTraining:
    for key in ("n_input_dims", "n_output_dims", "config", "n_steps", "n_skipped_steps"):
        if key not in header:
            raise SnapshotError(f"its header lacks {key}")
    config, counts = header["config"], (header["n_steps"], header["n_skipped_steps"])
    if not (isinstance(config, Mapping) and config.keys() >= set(SECTIONS)):
        raise SnapshotError(f"config: expected an object with {', '.join(SECTIONS)}")
    if not all(type(count) is int and 0 <= count <= MOST_STEPS for count in counts):
        raise SnapshotError(f"n_steps, n_skipped_steps: expected integers from 0 to {MOST_STEPS}")
    deterministic = config.get("deterministic", False)
    if not isinstance(deterministic, bool):
        raise SnapshotError("deterministic: expected true or false")
    if not isinstance(header.get("metadata"), dict):
        raise SnapshotError("metadata: expected an object")
    encoding = create_encoding_component(header["n_input_dims"], config["encoding"])
    network = create_network_component(encoding, header["n_output_dims"], config["network"])
    loss = registry.create("loss", config["loss"], default="RelativeL2")
    loss.row(network.n_output_dims, False)  # raises if it cannot take so many outputs
    optimizer = registry.create("optimizer", config["optimizer"], default="Adam")
    return SavedTraining(
        encoding, network, loss, optimizer, *counts, header["metadata"], deterministic
    )
