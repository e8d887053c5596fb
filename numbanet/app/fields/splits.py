"""Division of a scene's frames into those to learn and those to measure.

A folder has transforms_train.json and transforms_test.json (or transforms_val.json), or
transforms.json alone, whose train_filenames, test_filenames and val_filenames say it, as
nerfstudio has them. Without any of these every eighth picture is measured. Of one file, what is to
be measured is not learned, whatever its other lists say.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from numbanet.app.errors import UsageError
from numbanet.shown import shown

TEST_EVERY = 8
LISTS = "train_filenames", "test_filenames", "val_filenames"


def files_of(path: Path) -> list[Path]:
    """Files of a scene: one, or one to learn and one to measure."""
    if not path.is_dir():
        return [path]
    train = path / "transforms_train.json"
    if not train.exists():
        return [path / "transforms.json"]
    others = [path / f"transforms_{part}.json" for part in ("test", "val")]
    return [train, *[other for other in others if other.exists()][:1]]


def divided(content: Mapping[str, Any], frames: list, path: Path) -> list[list]:
    """Frames to learn, and frames to measure.

    Raises:
        UsageError: a list names what is no frame.
    """
    names = [name_of(frame["file_path"]) for frame in frames]
    train, test, val = (listed(content, name, set(names), path) for name in LISTS)
    different = sorted(set(names))
    measured = test or val or (train and set(names) - train)
    if not measured:
        measured = set(different[:: min(TEST_EVERY, len(different))])
    learned = (train or set(names)) - measured - val
    pairs = list(zip(names, frames, strict=True))
    return [[frame for name, frame in pairs if name in part] for part in (learned, measured)]


def listed(content: Mapping[str, Any], key: str, names: set[str], path: Path) -> set[str]:
    """Names in one of the file's lists; none if there is no such list."""
    values = content.get(key)
    if values is None:
        return set()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f"'{path}': {key}: expected a list of names, got {shown(values)}")
    for value in values:
        if name_of(value) not in names:
            raise UsageError(f"'{path}': {key}: {shown(value)} is the file_path of no frame")
    return {name_of(value) for value in values}


def name_of(file_path: str) -> str:
    """Name of a picture, without "./"."""
    return str(PurePosixPath(file_path))
