"""Reading configs: JSON with comments and trailing commas, and files that extend a parent."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numbanet.commented_json import Pairs, parse
from numbanet.registry import MOST_DEPTH, ConfigError
from numbanet.regular_file import read_regular
from numbanet.shown import joined, shown

MOST_BYTES = 2**20  # of a file
MOST_PARENTS = 32


def load_config(config: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Read a config from a file, or copy one from a dict, as plain Python values.

    A file is JSON in UTF-8 with `//`, `#` and `/* */` comments and trailing commas. The option
    "parent" names another file, relative to this one (a dict: to the current directory), whose
    options hold where this config says nothing. Objects are merged; anything else is replaced.

    Raises:
        ConfigError: the file is no such JSON, a key is given twice, objects and lists are nested
            deeper than 32, or a value is none of JSON's (NaN, infinity).
        OSError: the file cannot be read, is no regular one, or is larger than 1 MiB.
    """
    if isinstance(config, Mapping):
        return _with_parent(plain(config), Path.cwd(), ())
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config: expected the name of a file or a dict, got {shown(config)}")
    return _load_file(Path(config), ())


def plain(value: Any, path: str = "", where: str = "", n_left: int = MOST_DEPTH) -> Any:
    """Deep copy of dicts, lists and plain or NumPy scalars, in plain Python types.

    Args:
        path: the option that holds the value, for messages.
        where: words about the file, for messages.
        n_left: how deep objects and lists may be nested in it.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, Mapping | list | tuple) and n_left == 0:
        raise ConfigError(f"{path}: nested deeper than {MOST_DEPTH} objects and lists{where}")
    if isinstance(value, Pairs):
        twice = value.repeated()
        if twice is not None:
            raise ConfigError(f"{joined(path, twice)}: given twice; keep one of them{where}")
        value = dict(value)
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else shown(key): plain(
                item, joined(path, key), where, n_left - 1
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{k}]", where, n_left - 1) for k, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {value!r} is not allowed; use a finite number{where}")
    if isinstance(value, int) and value.bit_length() > 1024:
        raise ConfigError(f"{path}: {shown(value)} is not allowed; use a smaller number{where}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise ConfigError(
        f"{path}: {kind} is not allowed; use numbers, strings, lists and dicts{where}"
    )


def _load_file(file: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    content = read_regular(file, MOST_BYTES)
    file = file.resolve()
    if file in children:
        chain = " -> ".join(map(str, (*children, file)))
        raise ConfigError(f"parent: configs extend each other in a circle: {chain}")
    if len(children) > MOST_PARENTS:
        raise ConfigError(f"parent: {children[0]} has more than {MOST_PARENTS} of them")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    config = parse(text, str(file))
    if not isinstance(config, Pairs):
        raise ConfigError(f"{file}: expected a JSON object, got {shown(config)}")
    return _with_parent(plain(config, where=f" (in {file})"), file.parent, (*children, file))


def _with_parent(
    config: dict[str, Any], directory: Path, children: tuple[Path, ...]
) -> dict[str, Any]:
    parent = config.pop("parent", None)
    if parent is None:
        return config
    if not isinstance(parent, str):
        raise ConfigError(f"parent: expected the name of a file, got {shown(parent)}")
    try:
        base = _load_file(directory / parent, children)
    except OSError as error:
        raise ConfigError(
            f"parent: {shown(parent)} cannot be read ({error.strerror}); it is looked for in "
            f"{directory}"
        ) from error
    return _merged(base, config)


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    both = {key: _merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}
