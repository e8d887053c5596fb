"""`--set PATH=VALUE`: changes of options of a command's config."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numbanet.app.arguments import read_config
from numbanet.app.errors import UsageError
from numbanet.commented_json import Pairs
from numbanet.config import plain
from numbanet.registry import ConfigError
from numbanet.shown import shown

FORM = "write it as --set encoding.n_levels=8, or --set optimizer.nested.decay=0.9"
STEP = re.compile(r"([^.\[\]]+)|\[([0-9]{1,9})\]")


def overridden(
    config: str | Path | Mapping[str, Any], assignments: Iterable[str]
) -> dict[str, Any]:
    """Config with some options changed; values are checked when the config is used.

    Args:
        config: a file, or its content.
        assignments: each a path and a value: "encoding.n_levels=8", "encoding.nested[0].degree=3".
            A value is JSON, and else a string: `loss.otype=L2` needs no quotation marks.

    Raises:
        UsageError: the file cannot be read, an assignment leads nowhere, or its value could not be
            in a file.
    """
    config = read_config(config)
    try:
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set {shown(assignment)}: there is no value; {FORM}")
            assign(config, path.strip(), plain(value_of(text.strip()), path.strip()))
        return plain(config)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def value_of(text: str) -> Any:
    """Value that a text denotes."""
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return text


def assign(config: dict[str, Any], path: str, value: Any) -> None:
    """Set the option at a path, making missing objects on the way."""
    *steps, last = steps_of(path)
    place: Any = config
    for step in steps:
        if isinstance(place, dict) and isinstance(step, str):
            place = place.setdefault(step, {})
        else:
            place = item(place, step, path)
    if isinstance(place, dict) and isinstance(last, str):
        place[last] = value
    else:
        item(place, last, path)
        place[last] = value


def item(place: Any, step: str | int, path: str) -> Any:
    """The existing item of a list at an index."""
    if not isinstance(place, list) or not isinstance(step, int):
        what = "a list" if isinstance(place, list) else shown(place)
        raise UsageError(f"--set {path}: {what} has no {shown(step)}; {FORM}")
    if step >= len(place):
        raise UsageError(f"--set {path}: there is no [{step}] in a list of {len(place)}")
    return place[step]


def steps_of(path: str) -> list[str | int]:
    """Steps of a path: ["encoding", "nested", 0, "degree"] for encoding.nested[0].degree."""
    found = [int(number) if number else name for name, number in STEP.findall(path)]
    written = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in found)
    if not found or written != f".{path}":
        raise UsageError(f"--set {shown(path)}: this is no path of an option; {FORM}")
    return found
