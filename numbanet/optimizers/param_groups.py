"""ParamGroups: factors of the learning rate, and decay of the weights, for parts by name.

Of a parameter w that the nested optimizer moves by d, at the learning rate r, ParamGroups makes
w + factor (d - r weight_decay w); the decay is that of Loshchilov and Hutter 2019. A group has
"parts", names of parameters such as "network.0", "encoding.levels.3" or "color.*" (`*`, `?` and
`[0-3]` stand for what they do in names of files), "learning_rate_factor" and "weight_decay". A
parameter is in the first group that names it; one that no group names moves as it did.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.device import ONE, ZERO, device, local_array, select, unrolled
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.optimizers.wrapper import NESTED, AbstractWrapper
from numbanet.registry import ConfigError, check, register
from numbanet.shown import shown
from numbanet.unknown_options import note_unknown

MOST_GROUPS = 32
MOST_NAMES = 256  # of a group
MOST_FACTOR = 1e6


@dataclass(frozen=True)
class Group:
    """Names of parts, with their factor of the learning rate and their decay."""

    parts: tuple[str, ...]
    learning_rate_factor: float = 1.0
    weight_decay: float = 0.0

    def to_config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "parts": list(self.parts)}

    def names(self, part: str) -> bool:
        """Whether the group contains a part of that name."""
        return any(fnmatch.fnmatchcase(part, pattern) for pattern in self.parts)


def create_groups(value: Any, path: str) -> tuple[Group, ...]:
    if not (isinstance(value, list | tuple) and len(value) <= MOST_GROUPS):
        raise ConfigError(f"{path}: expected a list of up to {MOST_GROUPS}, got {shown(value)}")
    return tuple(create_group(each, f"{path}[{k}]") for k, each in enumerate(value))


def create_group(value: Any, path: str) -> Group:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(value)}")
    known = {each.name: each for each in dataclasses.fields(Group)}
    note_unknown(value, known, path, "a group", {})
    parts = value.get("parts")
    parts = (parts,) if isinstance(parts, str) else parts
    is_list = isinstance(parts, list | tuple) and 1 <= len(parts) <= MOST_NAMES
    if not (is_list and all(isinstance(each, str) and each for each in parts)):
        raise ConfigError(
            f"{path}.parts: expected a name or a list of 1 to {MOST_NAMES}, got {shown(parts)}"
        )
    numbers = {}
    for name in ("learning_rate_factor", "weight_decay"):
        given = value.get(name, known[name].default)
        number = registry.convert(known[name], given, f"{path}.{name}")
        if not 0 <= number <= MOST_FACTOR:
            raise ConfigError(f"{path}.{name}: {number} is not allowed; use 0 to {MOST_FACTOR:g}")
        numbers[name] = number
    return Group(tuple(parts), **numbers)


GROUPS = {"convert": create_groups, "shown": "list of objects", "items": {"type": "object"}}


@register("optimizer", "ParamGroups")
@dataclass(frozen=True)
class ParamGroups(AbstractWrapper):
    """Factors and decays are data: to change them compiles nothing, but for a decay of 0."""

    groups: tuple[Group, ...] = field(default=(), metadata=GROUPS)  # parts, factor, weight_decay
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    def __post_init__(self):
        averages = self.nested.weight_rows(1) or self.nested.inference_row is not None
        allowed = "an optimizer that keeps no weights: put ParamGroups into it instead"
        check(not averages, "nested", self.nested.otype, allowed)

    @property
    def n_own_scalars(self):
        """Number of scalars: a factor and a decay for the ungrouped, and for each group."""
        return 2 * (len(self.groups) + 1)

    @property
    def decays(self):
        first = self.nested.n_scalars
        return *self.nested.decays, *range(first + 1, first + self.n_own_scalars, 2)

    def hyperparams(self) -> tuple[float, ...]:
        own = ((each.learning_rate_factor, each.weight_decay) for each in self.groups)
        return *self.nested.hyperparams(), *(number for pair in own for number in pair)

    @property
    def is_tame(self):
        rate = self.nested.learning_rate
        return self.nested.is_tame and all(
            each.learning_rate_factor <= 1 and each.weight_decay * rate <= 1 for each in self.groups
        )

    @cached_property
    def schedule(self):
        nested, n_groups, rate = self.nested.schedule, len(self.groups), self.nested.rates[0]
        first, own = self.nested.n_scalars, self.nested.n_hyperparams

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams[:own], scalars[:first])
            scalars[first], scalars[first + 1] = np.float32(1), np.float32(0)
            for k in range(n_groups):
                factor, decay = hyperparams[own + 2 * k], hyperparams[own + 2 * k + 1]
                scalars[first + 2 * k + 2] = factor
                scalars[first + 2 * k + 3] = factor * decay * scalars[rate]

        return schedule

    def _group_numbers(self, layout: ParamLayout) -> list[tuple[int, int]]:
        """Starts of groups: the first parameter, and the group's number, from 1; 0 is none's.

        Raises:
            ConfigError: a group names no part.
        """
        owners = np.zeros(layout.n_params, np.uint8)
        for number, group in reversed(list(enumerate(self.groups, 1))):
            named = [each for each in layout.named_ranges if group.names(each[0])]
            if not named:
                known = ", ".join(name for name, *_ in layout.named_ranges)
                raise ConfigError(
                    f"optimizer.groups[{number - 1}].parts: {shown(list(group.parts))} name no "
                    f"part; there are {known:.400}"
                )
            for _, first, last in named:
                owners[first - layout.first : last - layout.first] = number
        places = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1)]
        return [(layout.first + int(i), int(owners[i])) for i in places]

    def matrix_ranges(self, layout: ParamLayout) -> tuple[tuple[int, int], ...]:
        self._group_numbers(layout)  # raises where a group names no part
        return self.nested.matrix_ranges(layout)

    def _own_scalars(self, layout: ParamLayout):
        """Device function (i, scalars, own) that writes factor and decay of parameter i."""
        numbers = self._group_numbers(layout)
        starts = tuple(np.uintp(start) for start, _ in numbers)
        places = tuple(np.uintp(self.nested.n_scalars + 2 * group) for _, group in numbers)
        n = len(starts)

        @device
        def take(j, i, scalars, own):  # j is a constant: neither array has a computed index
            begun, k = np.uintp(i) >= starts[j], places[j]
            own[0] = select(begun, scalars[k], own[0])
            own[1] = select(begun, scalars[k + np.uintp(1)], own[1])

        @device
        def own_scalars(i, scalars, own):
            own[0], own[1] = ONE, ZERO
            unrolled(n, take, i, scalars, own)

        return own_scalars

    def moves(self, layout: ParamLayout):
        if any(each.weight_decay > 0 for each in self.groups):
            return super().moves(layout)
        return self.nested.moves(layout)

    def step(self, layout: ParamLayout):
        nested, own_scalars = self.nested.step(layout), self._own_scalars(layout)

        @device
        def param_groups(i, w, g, state, scalars, matrices):
            moved, own = nested(i, w, g, state, scalars, matrices), local_array(2)
            own_scalars(i, scalars, own)
            return w + own[0] * (moved - w) - own[1] * w

        return param_groups

    def kernel_key(self) -> AbstractOptimizer:
        groups = tuple(
            dataclasses.replace(
                each, learning_rate_factor=1.0, weight_decay=float(each.weight_decay > 0)
            )
            for each in self.groups
        )
        return dataclasses.replace(self, groups=groups, nested=self.nested.kernel_key())
