"""What is set on a trainer, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.optimizers.base import MOST_STEPS
from numbanet.registry import ConfigError
from numbanet.shown import shown
from numbanet.unknown_options import UnknownOptions


def check_count(name: str, value: Any) -> int:
    """The value as an int, if steps can be counted on from there; else a ValueError."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and 0 <= value <= MOST_STEPS):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use an integer to {MOST_STEPS}")
    return int(value)


def updated(component: Any, options: Mapping[str, Any], path: str) -> Any:
    """The component with some options changed, through the same checks as a config."""
    if not isinstance(options, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(options)}")
    config = registry.merged(registry.to_config(component), options)
    derived = {
        field.name: getattr(component, field.name)
        for field in dataclasses.fields(component)
        if field.metadata.get("derived")
    }
    with UnknownOptions(warns=False) as unknown:
        changed = registry.create(path, config, default=component.otype, path=path, **derived)
    if unknown.messages:
        raise ConfigError(unknown.messages[0])
    return changed
