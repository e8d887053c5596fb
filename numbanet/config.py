"""Reading configs: JSON with comments and trailing commas, and files that extend a parent."""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numbanet.registry import ConfigError

_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = re.compile(rf"{_STRING}|(?://|\#)[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)


def load_config(config: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Read a config from a file, or copy one from a dict, as plain Python values.

    A file is JSON in UTF-8 with `//`, `#` and `/* */` comments and trailing commas. The option
    "parent" names another file, relative to this one (a dict: to the current directory), whose
    options hold where this config says nothing. Objects are merged; anything else is replaced.

    Raises:
        ConfigError: the file is no such JSON, or a value is none of JSON's (NaN, infinity).
        OSError: the file cannot be read.
    """
    if isinstance(config, Mapping):
        return _with_parent(plain(config), Path.cwd(), ())
    return _load_file(Path(config), ())


def plain(value: Any, path: str = "", where: str = "") -> Any:
    """A deep copy of dicts, lists and plain or NumPy scalars, in plain Python types.

    Args:
        path: the option that holds the value, for messages.
        where: words about the file, for messages.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, Mapping):
        dot = f"{path}." if path else ""
        return {str(key): plain(item, f"{dot}{key}", where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{k}]", where) for k, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {value!r} is not allowed; use a finite number{where}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise ConfigError(
        f"{path}: {kind} is not allowed; use numbers, strings, lists and dicts{where}"
    )


def _load_file(file: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    file = file.resolve()
    if file in children:
        chain = " -> ".join(map(str, (*children, file)))
        raise ConfigError(f"parent: configs extend each other in a circle: {chain}")
    try:
        text = _blanked(file.read_text(encoding="utf-8-sig"))
        config = json.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deep") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}:{error.lineno}:{error.colno}: {error.msg}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: expected a JSON object, got {config!r}")
    return _with_parent(plain(config, where=f" (in {file})"), file.parent, (*children, file))


def _blanked(text: str) -> str:
    """The text with comments and trailing commas as spaces, so that every line stays its own."""

    def blank(match):
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _TRAILING_COMMA.sub(blank, _COMMENT.sub(blank, text))


def _with_parent(config, directory, children):
    parent = config.pop("parent", None)
    if parent is None:
        return config
    if not isinstance(parent, str):
        raise ConfigError(f"parent: expected the name of a file, got {parent!r}")
    return _merged(_load_file(directory / parent, children), config)


def _merged(base, over):
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    both = {key: _merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}
