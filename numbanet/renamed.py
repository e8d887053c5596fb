"""Old names that still work, with a DeprecationWarning that names the new one."""

from collections.abc import Callable
from typing import Any

from numbanet.caller import warn_caller


def warn_renamed(old: str, new: str) -> None:
    """Warn at the line that uses an old name."""
    warn_caller(
        f"numbanet's {old} is deprecated, and goes in version 0.3; use {new}", DeprecationWarning
    )


def renamed(old: str, new: str, get: Callable[[Any], Any]) -> property:
    """Property with an old name.

    Args:
        old, new: both names, as in a program.
        get: the value, of the object.
    """

    def warn_and_get(self):
        warn_renamed(old, new)
        return get(self)

    return property(warn_and_get, doc=f"Deprecated: use `{new}`.")
