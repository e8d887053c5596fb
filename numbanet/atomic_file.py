"""Files that appear complete or not at all."""

import os
import uuid
from pathlib import Path


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that `path` holds either all of `content` or what it held before.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
