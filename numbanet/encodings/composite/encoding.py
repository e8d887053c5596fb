"""Composite: nested encodings of ranges of the inputs; concatenated, added up or multiplied.

Each nested config has two more options: dims_to_encode_begin, its first input (where the previous
one ends), and n_dims_to_encode, how many there are (for one of them, all that the others leave).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numbanet import registry
from numbanet.arrays import next_multiple
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.composite.concatenation import Concatenation
from numbanet.encodings.composite.product import Product
from numbanet.encodings.composite.selection import Selection
from numbanet.encodings.composite.total import Sum
from numbanet.encodings.wrapper import AbstractWrapper
from numbanet.registry import ConfigError, check, derived, register
from numbanet.shown import shown

MOST_NESTED = 64  # they become pairs of pairs, of which Python and compilers take only so many
REDUCTIONS = {"Concatenation": Concatenation, "Sum": Sum, "Product": Product}


@dataclass(frozen=True)
class Range:
    """Options of a nested encoding that select its inputs."""

    n_dims_to_encode: int | None = None  # all those that the others leave; only one may say so
    dims_to_encode_begin: int | None = None  # where the previous one ends


@dataclass(frozen=True)
class Nested:
    """Encoding of the inputs from dims_to_encode_begin on."""

    encoding: AbstractEncoding
    dims_to_encode_begin: int

    @property
    def end(self) -> int:
        return self.dims_to_encode_begin + self.encoding.n_dims

    def to_config(self) -> dict[str, Any]:
        n_dims, begin = self.encoding.n_dims, self.dims_to_encode_begin
        own = registry.to_config(self.encoding)
        return {**own, "n_dims_to_encode": n_dims, "dims_to_encode_begin": begin}


def create_nested(configs: Any, path: str, n_dims: int) -> tuple[Nested, ...]:
    """Nested encodings of a list of configs; those without inputs are left out."""
    if not isinstance(configs, list | tuple):
        raise ConfigError(f"{path}: expected a list of encodings, got {shown(configs)}")
    if len(configs) > MOST_NESTED:
        raise ConfigError(f"{path}: {len(configs)} encodings; use up to {MOST_NESTED}")
    paths = [f"{path}[{k}]" for k in range(len(configs))]
    ranges = [read_range(*pair) for pair in zip(configs, paths, strict=True)]
    nested = []
    for config, where, (begin, end) in zip(
        configs, paths, resolve(ranges, path, n_dims), strict=True
    ):
        if end > n_dims:
            raise ConfigError(f"{where}.n_dims_to_encode: inputs {begin} to {end} of {n_dims}")
        if begin < end:
            own = {
                key: value for key, value in config.items() if key not in registry.options(Range)
            }
            encoding = registry.create(
                "encoding", own, default="OneBlob", path=where, n_dims=end - begin
            )
            nested.append(Nested(encoding, begin))
    return tuple(nested)


def read_range(config: Any, path: str) -> Range:
    if not isinstance(config, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(config)}")
    values = {}
    for name, field in registry.options(Range).items():
        value = registry.convert(field, config.get(name), f"{path}.{name}")
        if value is not None and value < 0:
            raise ConfigError(f"{path}.{name}: {value} is not allowed; use 0 or more")
        values[name] = value
    return Range(**values)


def resolve(ranges: list[Range], path: str, n_dims: int) -> list[tuple[int, int]]:
    """Range of the inputs of each nested encoding: the first, and the last + 1."""
    open_ones = [k for k, given in enumerate(ranges) if given.n_dims_to_encode is None]
    n_given = sum(given.n_dims_to_encode or 0 for given in ranges)
    has_begin = any(given.dims_to_encode_begin is not None for given in ranges)
    if open_ones[0 if has_begin else 1 :]:
        option = f"{path}[{open_ones[-1]}].n_dims_to_encode"
        why = "where one has dims_to_encode_begin" if has_begin else "of all encodings but one"
        raise ConfigError(f"{option}: it is missing; it must be given {why}")
    if not has_begin and n_given > n_dims:
        raise ConfigError(f"{path}: they encode {n_given} inputs, and there are {n_dims}")
    found, end = [], 0
    for given in ranges:
        begin = end if given.dims_to_encode_begin is None else given.dims_to_encode_begin
        width = given.n_dims_to_encode
        end = begin + (n_dims - n_given if width is None else width)
        found.append((begin, end))
    return found


@register("encoding", "Composite")
@dataclass(frozen=True)
class Composite(AbstractWrapper):
    """Nested encodings; an input may be read by none or by several, whose gradients add up."""

    n_dims: int = derived()
    nested: tuple[Nested, ...] = dataclasses.field(default=(), metadata={"convert": create_nested})
    reduction: str = registry.choice("Concatenation", REDUCTIONS)

    def __post_init__(self):
        reduction = registry.spelling("reduction", self.reduction, REDUCTIONS)
        object.__setattr__(self, "reduction", reduction)
        check(len(self.nested) > 0, "nested", [], "at least one encoding that has inputs")
        if self.reduction != "Concatenation":
            widths = {encoding.n_outputs for encoding in self._aligned()}
            allowed = f"nested encodings of equal width, or Concatenation: these have {widths}"
            check(len(widths) == 1, "reduction", self.reduction, allowed)

    def _aligned(self) -> list[AbstractEncoding]:
        """Nested encodings, padded as their alignments and the reduction require."""
        encodings = [nested.encoding for nested in self.nested]
        alignments = [encoding.required_output_alignment for encoding in encodings]
        if self.reduction != "Concatenation":
            alignment = math.lcm(*alignments)
            return [
                encoding.padded(next_multiple(encoding.n_outputs, alignment))
                for encoding in encodings
            ]
        aligned, start = [], 0
        for encoding, alignment in zip(encodings, [*alignments[1:], 1], strict=True):
            end = next_multiple(start + encoding.n_outputs, alignment)
            aligned.append(encoding.padded(end - start))
            start = end
        return aligned

    @functools.cached_property
    def encoding(self) -> AbstractEncoding:
        """Nested encodings as pairs of pairs."""
        selected = [
            encoding
            if encoding.n_dims == self.n_dims
            else Selection(encoding, nested.dims_to_encode_begin, self.n_dims)
            for encoding, nested in zip(self._aligned(), self.nested, strict=True)
        ]
        return functools.reduce(REDUCTIONS[self.reduction], selected).placed(0)

    def kernel_key(self):
        return self.encoding.kernel_key()

    def placed(self, first_param):
        return self.encoding.placed(first_param)

    @property
    def grid_dims(self):
        return tuple(
            nested.dims_to_encode_begin + dim
            for nested in self.nested
            for dim in nested.encoding.grid_dims
        )

    @property
    def quantized(self):
        found, first = [], 0
        for nested in self.nested:
            found += [each.after(first) for each in nested.encoding.quantized]
            first += nested.encoding.n_params
        return tuple(found)

    @property
    def param_shapes(self):
        return {
            f"{k}.{name}": shape
            for k, nested in enumerate(self.nested)
            for name, shape in nested.encoding.param_shapes.items()
        }
