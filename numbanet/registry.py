"""Registry of components: (kind, name) -> frozen dataclass, and their creation from JSON.

Names are compared case-insensitively, as in tiny-cuda-nn. Defaults exist only as dataclass
defaults. A name that is not there is an error that lists what is; an option that is not there is a
warning, because real programs pass extra keys along.
"""

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numbanet.shown import joined, shown
from numbanet.unknown_options import UnknownOptions, near_otype, note_unknown

KINDS = ("encoding", "network", "loss", "optimizer")  # each has a section in a config
REGISTRABLE = (*KINDS, "activation")  # options of a network name activations

MAX_FLOAT32 = (2 - 2**-23) * 2.0**127
MAX_INT = 2**31 - 1  # of an option; kernels count in int32
MOST_DEPTH = 32  # of the objects and lists of a config

_components: dict[tuple[str, str], Callable] = {}
_display_names: dict[str, list[str]] = {kind: [] for kind in REGISTRABLE}


class ConfigError(ValueError):
    """The config cannot be used; the message starts with the path of the offending option."""


def derived(**kwargs) -> Any:
    """Declare a dataclass field that the model supplies and the JSON config does not."""
    return dataclasses.field(metadata={"derived": True}, **kwargs)


def choice(default: str, names: Iterable[str]) -> Any:
    """Declare an option that is one of some names, in any case; `spelling` checks it."""
    return dataclasses.field(default=default, metadata={"choices": tuple(names)})


def register(kind: str, *names: str) -> Callable:
    """Register a frozen dataclass, or a factory with a `component` attribute, under `names`.

    The first name is the one that `to_config` writes. An "activation" is a subclass of
    AbstractActivation instead.

    Raises:
        ValueError: the kind does not exist or one of the names is taken.
        TypeError: the class lacks a method.
    """
    if kind not in REGISTRABLE:
        raise ValueError(f"kind {kind!r} does not exist; use one of {', '.join(REGISTRABLE)}")
    if not names:
        raise ValueError(f"a name is missing: @register({kind!r}, 'MyName')")

    def add(component):
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        if missing:
            raise TypeError(f"{kind} {names[0]}: {component.__qualname__} lacks {missing}")
        for name in names:
            other = _components.get((kind, name.lower()), component)
            if (other.__module__, other.__qualname__) != (
                component.__module__,
                component.__qualname__,
            ):  # the same one comes again where a notebook's cell runs again
                raise ValueError(f"{kind} {name!r} is registered already; choose another name")
        for name in names:
            if (kind, name.lower()) not in _components:
                _display_names[kind].append(name)
            _components[kind, name.lower()] = component
        if "otype" not in vars(component):
            component.otype = names[0]
        if dataclasses.is_dataclass(component):
            component.__getstate__ = option_values
        return component

    return add


def option_values(component: Any) -> dict[str, Any]:
    """Options of a component, for pickling; device functions that it has made are left out."""
    return {field.name: getattr(component, field.name) for field in dataclasses.fields(component)}


def registered(kind: str) -> dict[str, Callable]:
    """Components of a kind, by the name under which they were registered."""
    return {name: _components[kind, name.lower()] for name in _display_names[kind]}


def find(kind: str, name: Any) -> Callable | None:
    """Component registered under a name, in any case; None if there is none."""
    return _components.get((kind, name.lower())) if isinstance(name, str) else None


def options(component: type) -> dict[str, dataclasses.Field]:
    """JSON options of a component, by name."""
    return {
        field.name: field
        for field in dataclasses.fields(component)
        if not field.metadata.get("derived")
    }


def default_of(option: dataclasses.Field) -> Any:
    """Default of an option."""
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default


def create(kind: str, config: Mapping[str, Any], *, default: str, path: str = "", **extra) -> Any:
    """Make a component from its JSON config; `extra` are the derived values.

    Args:
        kind: "encoding", "network", "loss" or "optimizer".
        config: the options; `otype` names the component and is `default` where missing.
        path: where the config stands in the whole one, for messages.

    Raises:
        ConfigError: unknown otype, or an option of a wrong type or value.
    """
    if path in ("", kind):
        path = kind
        check_depth(config, path)
    if not isinstance(config, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(config)}{_remedy(config)}")
    name = config.get("otype", default)
    component = find(kind, name)
    if component is None:
        known = _display_names[kind]
        hint = near_otype(kind, name, known)
        raise ConfigError(
            f"{path}.otype: {shown(name)} is no {kind}{hint or ';'} use one of {', '.join(known)}"
        )
    given = {
        key if isinstance(key, str) else shown(key): value
        for key, value in config.items()
        if not (isinstance(key, str) and key == "otype")
    }
    with UnknownOptions():
        if not dataclasses.is_dataclass(component):
            return component(given, name=name, path=path, **extra)
        return _component(component, given, path, extra)


def _component(component: type, given: Mapping[str, Any], path: str, extra: Mapping) -> Any:
    known = options(component)
    note_unknown(given, known, path, component.otype, extra)
    values = {
        key: convert(known[key], value, f"{path}.{key}", **extra)
        for key, value in given.items()
        if key in known
    }
    wanted = {field.name for field in dataclasses.fields(component)}
    supplied = {key: value for key, value in extra.items() if key in wanted}
    try:
        return component(**values, **supplied)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}.{error}") from error


def _remedy(config: Any) -> str:
    """Advice for a text in the place of an object."""
    if not isinstance(config, str | os.PathLike):
        return ""
    return '; numbanet.load_config reads files, and the name of a component is its "otype"'


def check_depth(value: Any, path: str, n_left: int = MOST_DEPTH) -> None:
    """Raise a ConfigError where objects and lists are nested deeper than MOST_DEPTH."""
    if isinstance(value, Mapping):
        items = ((joined(path, key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{path}[{k}]", item) for k, item in enumerate(value))
    else:
        return
    if n_left == 0:
        raise ConfigError(f"{path}: nested deeper than {MOST_DEPTH} objects and lists")
    for where, item in items:
        check_depth(item, where, n_left - 1)


def convert(field: dataclasses.Field, value: Any, path: str, **extra) -> Any:
    """Convert a value to the plain Python type of the field; NumPy's arrays are welcome.

    A field may have its own function for that as "convert" in its metadata; `extra` are the derived
    values of the component, which nested components may need.
    """
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        value = value.tolist()
    if "convert" in field.metadata:
        return field.metadata["convert"](value, path, **extra)
    expected = type_name(field)
    plain, _, none = expected.partition(" | ")
    if value is None and none == "None":
        return None
    if value is None and "None" in field.metadata.get("choices", ()):
        return "None"
    if plain == "bool":
        if isinstance(value, bool):
            return value
    elif plain == "int":
        if is_number(value) and abs(value) <= MAX_INT and value == int(value):
            return int(value)
        if is_number(value) and MAX_INT < abs(value) < math.inf:
            raise ConfigError(f"{path}: {shown(value)} fits no 32 bits; use a smaller integer")
    elif plain == "float":
        if is_number(value) and abs(value) <= MAX_FLOAT32:
            return float(value)
        if is_number(value) and MAX_FLOAT32 < abs(value) < math.inf:
            raise ConfigError(f"{path}: {shown(value)} fits no float32; use a smaller number")
        if is_number(value):
            raise ConfigError(f"{path}: {shown(value)} is not allowed; use a finite number")
    elif plain == "str":
        if isinstance(value, str):
            return value
    else:
        return value
    raise ConfigError(f"{path}: expected {expected}, got {shown(value)}")


def type_name(field: dataclasses.Field) -> str:
    """Type of a field as text, such as "int | None"; annotations may be strings."""
    if isinstance(field.type, str):
        return field.type
    if typing.get_origin(field.type) in (typing.Union, types.UnionType):  # Optional[int] is one
        return " | ".join(
            "None" if each is types.NoneType else getattr(each, "__name__", str(each))
            for each in typing.get_args(field.type)
        )
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def is_number(value: Any) -> bool:
    """Whether the value is a real number; JSON's true and false are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def to_config(component: Any) -> dict[str, Any]:
    """JSON config that makes an equal component, with every option written out."""
    config = {"otype": component.otype}
    for name in options(type(component)):
        value = getattr(component, name)
        config[name] = as_json(value)
    return config


def as_json(value: Any) -> Any:
    """Option as JSON: a nested component as its config, a tuple as a list."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if hasattr(value, "to_config"):
        return value.to_config()
    return to_config(value) if hasattr(value, "otype") else value


def merged(config: Any, changes: Any) -> Any:
    """Config with some options changed, also those of components nested in it.

    A component is replaced as a whole by one of another otype, a list by one of another length.
    """
    if isinstance(config, dict) and isinstance(changes, Mapping):
        otype = str(config.get("otype")).lower()
        given = changes.get("otype", otype)
        if isinstance(given, str) and given.lower() == otype:
            rest = {key: value for key, value in changes.items() if key != "otype"}
            return config | {key: merged(config.get(key), rest[key]) for key in rest}
    if isinstance(config, list) and isinstance(changes, list) and len(config) == len(changes):
        return [merged(*pair) for pair in zip(config, changes, strict=True)]
    return changes


def spelling(option: str, value: Any, names: Iterable[str]) -> str:
    """Member of `names` that equals the value in any case; raises ValueError if there is none."""
    spellings = {name.lower(): name for name in names}
    known = isinstance(value, str) and value.lower() in spellings
    check(known, option, value, f"one of {', '.join(names)}")
    return spellings[value.lower()]


def check(condition: bool, option: str, value: Any, allowed: str) -> None:
    """Raise a ValueError that names the option, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{option}: {shown(value)} is not allowed; use {allowed}")
