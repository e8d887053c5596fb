"""Files of compiled code in the cache directory, each with a description and a checksum.

A file is a line of JSON and what that describes. Nothing in it is executed by reading it, and what
is damaged counts as absent.
"""

import hashlib
import json
import re
import threading
from pathlib import Path

from numbanet.atomic_file import replace_file
from numbanet.kernel_cache import directory

_one_at_a_time = threading.Lock()  # two threads would write the same temporary file


def path_of(name: str, suffix: str, key: tuple) -> Path:
    """Where the code with this key is kept; the key is all that determines the code."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    return directory() / f"{re.sub(r'[^0-9A-Za-z_]', '_', name)[:80]}-{digest}.{suffix}"


def read(path: Path) -> tuple[dict, bytes] | None:
    """The description and the content of a file, or None if it is absent or damaged."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        description = json.loads(head)
        if description.pop("sha256") == hashlib.sha256(content).hexdigest():
            return description, content
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def write(path: Path, description: dict, content: bytes) -> None:
    """Keep content; a directory that cannot be written is no error."""
    head = json.dumps({**description, "sha256": hashlib.sha256(content).hexdigest()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _one_at_a_time:
            replace_file(path, head.encode() + b"\n" + content)
    except OSError:
        return
