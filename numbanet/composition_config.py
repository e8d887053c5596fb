"""Compositions from configs: sections "parts" and "outputs" in the place of "encoding" and
"network".

"parts" is an object of parts by name, in the order of evaluation. The options of a part are
"inputs", what it reads: columns of "input" or of parts before it, such as "density", "density[0]"
or ["density[1:]", "input[3:6]"], side by side (default "input"); "encoding" and "network", of which
one may be missing, and "n_output_dims" of the network; or "shares", the name of a part before whose
components and parameters it has. "outputs" are columns of parts (default: all of the last one).
"""

import re
from collections.abc import Mapping
from typing import Any

from numbanet import registry
from numbanet.composition import INPUT, Columns, Composition, ModelPart
from numbanet.model_arguments import MOST_DIMS, check_dims
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.registry import ConfigError
from numbanet.shown import joined, shown
from numbanet.unknown_options import note_unknown

SECTIONS = ("parts", "outputs")
OPTIONS = ("inputs", "encoding", "network", "n_output_dims", "shares")
MOST_PARTS = 64
MOST_READ = 64  # columns side by side
INPUT_NAME = "input"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
COLUMNS = re.compile(rf"({NAME.pattern})(?:\[(?:(\d{{1,7}})|(\d{{0,7}}):(\d{{0,7}}))\])?")
HOW = "use a name with or without a range, such as 'density' or 'input[0:3]'"


def create_composition(
    n_input_dims: int, n_output_dims: int | None, config: Mapping[str, Any]
) -> Composition:
    """Create a composition from a config's "parts" and "outputs".

    Args:
        n_output_dims: how many outputs there have to be; None for any number.

    Raises:
        ConfigError: it cannot be used; the message starts with the path of the option.
        ValueError: a number of dimensions is not allowed.
    """
    n_input_dims = check_dims("n_input_dims", n_input_dims)
    if not isinstance(config, Mapping):
        raise ConfigError(f"config: expected a JSON object, got {shown(config)}")
    given = config.get("parts")
    if not (isinstance(given, Mapping) and given):
        raise ConfigError(f"parts: expected an object of parts by name, got {shown(given)}")
    if len(given) > MOST_PARTS:
        raise ConfigError(f"parts: {len(given)} parts; use up to {MOST_PARTS}")
    registry.check_depth(given, "parts")
    reader = Reader(n_input_dims)
    for name, options in given.items():
        reader.add(name, options)
    outputs = config.get("outputs", reader.parts[-1].name)
    found = Composition(n_input_dims, tuple(reader.parts), reader.columns(outputs, "outputs", True))
    for name in reader.unread(found.outputs):
        raise ConfigError(f"parts.{name}: nothing reads it; name it in outputs, or leave it out")
    n = found.n_output_dims
    if n_output_dims is not None and n != check_dims("n_output_dims", n_output_dims):
        raise ConfigError(f"outputs: they are {n} columns, and n_output_dims is {n_output_dims}")
    if n > MOST_DIMS:
        raise ConfigError(f"outputs: {n} columns; use up to {MOST_DIMS}")
    return found


class Reader:
    """Reader of parts, one after another, each of which may read those before."""

    def __init__(self, n_input_dims: int):
        self.widths, self.numbers = {INPUT: n_input_dims}, {INPUT_NAME: INPUT}
        self.parts: list[ModelPart] = []

    def add(self, name: Any, options: Any) -> None:
        """Add the part with a name."""
        path = joined("parts", name)
        if not (isinstance(name, str) and NAME.fullmatch(name)) or name in self.numbers:
            raise ConfigError(
                f"{path}: {shown(name)} is no name for a part; use up to 60 letters, digits and _, "
                f"not {INPUT_NAME!r}"
            )
        if not isinstance(options, Mapping):
            raise ConfigError(f"{path}: expected a JSON object, got {shown(options)}")
        note_unknown(options, OPTIONS, path, "part", {})
        inputs = self.columns(options.get("inputs", INPUT_NAME), f"{path}.inputs")
        n = sum(columns.n for columns in inputs)
        if options.get("shares") is None:
            part = own_part(name, inputs, n, options, path)
        else:
            part = self._sharing(name, inputs, n, options, path)
        self.numbers[name] = len(self.parts)
        self.widths[len(self.parts)] = part.n_outputs
        self.parts.append(part)

    def _sharing(self, name: str, inputs, n: int, options, path: str) -> ModelPart:
        other = options["shares"]
        known = [part.name for part in self.parts]
        if not isinstance(other, str) or other not in known:
            there = ", ".join(known) or "none"
            raise ConfigError(f"{path}.shares: {shown(other)} is no part before it ({there})")
        for option in ("encoding", "network", "n_output_dims"):
            if options.get(option) is not None:
                raise ConfigError(f"{path}.{option}: it is that of {other}; leave it out")
        number = self.numbers[other]
        part = self.parts[number]
        number = number if part.shares is None else part.shares
        if n != part.encoding.n_dims:
            raise ConfigError(
                f"{path}.inputs: they are {n} columns, and {other} reads {part.encoding.n_dims}"
            )
        return ModelPart(name, inputs, part.encoding, part.network, part.n_outputs, number)

    def columns(self, value: Any, path: str, only_parts: bool = False) -> tuple[Columns, ...]:
        """Columns that a text, or a list of texts, names."""
        texts = [value] if isinstance(value, str) else value
        if not (isinstance(texts, list | tuple) and 1 <= len(texts) <= MOST_READ):
            raise ConfigError(
                f"{path}: expected one name or a list of up to {MOST_READ}, got {shown(value)}"
            )
        return tuple(self._columns(each, path, only_parts) for each in texts)

    def _columns(self, text: Any, path: str, only_parts: bool) -> Columns:
        found = COLUMNS.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ConfigError(f"{path}: {shown(text)} names no columns; {HOW}")
        name, one, first, stop = found.groups()
        known = [each for each in self.numbers if not (only_parts and each == INPUT_NAME)]
        if name not in known:
            raise ConfigError(f"{path}: there is no {name!r} before it; use {', '.join(known)}")
        source = self.numbers[name]
        width = self.widths[source]
        if one is not None:
            first, stop = one, int(one) + 1
        columns = Columns(source, int(first or 0), int(stop or width))
        if not 0 <= columns.first < columns.stop <= width:
            raise ConfigError(f"{path}: {text!r} is not within the {width} columns of {name}")
        return columns

    def unread(self, outputs: tuple[Columns, ...]) -> list[str]:
        """Names of the parts that nothing reads."""
        read = {columns.source for part in self.parts for columns in part.inputs}
        read |= {columns.source for columns in outputs}
        return [part.name for k, part in enumerate(self.parts) if k not in read]


def own_part(name: str, inputs, n: int, options: Mapping[str, Any], path: str) -> ModelPart:
    """Part with components of its own."""
    encoding_config, network_config = options.get("encoding"), options.get("network")
    if encoding_config is None and network_config is None:
        raise ConfigError(f"{path}: it has neither encoding nor network; give it one, or shares")
    if encoding_config is None:
        encoding_config = {"otype": "Identity"}
    encoding = create_encoding_component(n, encoding_config, f"{path}.encoding")
    asked, network = options.get("n_output_dims"), None
    if network_config is not None:
        if asked is None:
            raise ConfigError(f"{path}.n_output_dims: it is missing; a network needs it")
        try:
            asked = check_dims("n_output_dims", asked)
        except ValueError as error:
            raise ConfigError(f"{path}.{error}") from error
        network = create_network_component(encoding, asked, network_config, f"{path}.network")
    n_outputs = encoding.n_outputs if network is None else network.n_output_dims
    if n_outputs == 0:
        raise ConfigError(f"{path}.encoding: {type(encoding).__name__} has no features")
    if asked not in (None, n_outputs):
        raise ConfigError(f"{path}.n_output_dims: the encoding has {n_outputs} features")
    return ModelPart(name, inputs, encoding, network, n_outputs)


def composition_config(composition: Composition) -> dict[str, Any]:
    """Config sections that make an equal composition, with every option written out."""
    names = {INPUT: INPUT_NAME, **{k: part.name for k, part in enumerate(composition.parts)}}

    def text(columns: Columns) -> str:
        return f"{names[columns.source]}[{columns.first}:{columns.stop}]"

    parts = {}
    for part in composition.parts:
        options: dict[str, Any] = {"inputs": [text(columns) for columns in part.inputs]}
        if part.shares is not None:
            options["shares"] = names[part.shares]
        else:
            options["encoding"] = registry.to_config(part.encoding)
            if part.network is not None:
                options["network"] = registry.to_config(part.network)
                options["n_output_dims"] = part.n_outputs
        parts[part.name] = options
    return {"parts": parts, "outputs": [text(columns) for columns in composition.outputs]}
