"""One file for each format; each holds a Format of the name FORMAT."""

import importlib
import pkgutil

from fuzz.campaign import Format


def names() -> list[str]:
    """Of all formats: the names of the files here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Format:
    """The format of that name, or of a module elsewhere, whose name has a dot."""
    return importlib.import_module(name if "." in name else f"{__name__}.{name}").FORMAT
