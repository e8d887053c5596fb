"""Settings of a trainer, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.losses.base import AbstractLoss
from numbanet.model import AbstractModel
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.registry import ConfigError
from numbanet.saved_training import meaning_of_state
from numbanet.shown import joined, shown
from numbanet.unknown_options import UnknownOptions


def changed(
    config: Mapping[str, Any], optimizer: AbstractOptimizer, loss: AbstractLoss, layout: ParamLayout
) -> tuple[AbstractOptimizer, AbstractLoss]:
    """Optimizer and loss with some options changed; see Trainer.update_hyperparams."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"expected a JSON object, got {shown(config)}")
    components = {"optimizer": optimizer, "loss": loss}
    for section, options in config.items():
        if section not in components:
            raise ConfigError(
                f"{joined('', section)}: cannot be changed; use 'optimizer' or 'loss'"
            )
        components[section] = updated(components[section], options, section)
    check_state(components["optimizer"], optimizer, layout)
    return components["optimizer"], components["loss"]


def check_state(new: AbstractOptimizer, old: AbstractOptimizer, layout: ParamLayout) -> None:
    """Raise ConfigError unless the new optimizer can take over the old one's state."""
    if meaning_of_state(new, layout) != meaning_of_state(old, layout):
        raise ConfigError(
            "optimizer: an option that changes the state's size or meaning cannot change"
        )


COMPONENTS = {
    "model": (AbstractModel, "create_encoding or create_network_with_input_encoding"),
    "optimizer": (AbstractOptimizer, "create_optimizer"),
    "loss": (AbstractLoss, "create_loss"),
}


def check_component(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a component of that kind."""
    kind, maker = COMPONENTS[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected what numbanet.{maker} makes, got {shown(value)}")


def check_components(**components: Any) -> None:
    """Raise TypeError unless these are what they are named."""
    for name, value in components.items():
        check_component(name, value)


def check_count(name: str, value: Any) -> int:
    """Return the value as an int, if steps can be counted on from it; else raise ValueError."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and 0 <= value <= MOST_STEPS):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use an integer to {MOST_STEPS}")
    return int(value)


def updated(component: Any, options: Mapping[str, Any], path: str) -> Any:
    """Component with some options changed, through the same checks as a config."""
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
