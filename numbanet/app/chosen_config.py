"""Config that a command is to use."""

import argparse
from collections.abc import Callable
from typing import Any


def chosen_config(arguments: argparse.Namespace, default: Callable[[], Any] = lambda: None) -> Any:
    """The named config, or the default, with the changes of --set."""
    if not arguments.set:
        return arguments.config
    from numbanet.app.overrides import overridden

    return overridden(arguments.config or default(), arguments.set)
