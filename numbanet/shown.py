"""Values and paths in messages: short, printable, and quick to format."""

import math
import reprlib
from typing import Any

MOST_CHARACTERS = 60  # of a string or a name
MOST_DIGITS = 40  # of an integer


class _Short(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 2, 4, 4, 4
        self.maxstring = self.maxother = MOST_CHARACTERS

    def repr_int(self, x, level):  # Python writes no integer of many digits
        n_digits = int(abs(x).bit_length() * math.log10(2)) + 1
        return repr(x) if n_digits <= MOST_DIGITS else f"an integer of {n_digits} digits"


def shown(value: Any) -> str:
    """Value as Python writes it, shortened for a message."""
    return _Short().repr(value)


def joined(path: str, key: Any) -> str:
    """Path of an option within the one at `path`, for a message."""
    name = str(key) if isinstance(key, str) else shown(key)
    if not name.isprintable() or len(name) > MOST_CHARACTERS:
        name = shown(name)
    return f"{path}.{name}" if path else name
