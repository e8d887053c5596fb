"""Learned field from a snapshot."""

import os
from typing import Any

from numbanet.app.fields.field import RadianceField
from numbanet.app.fields.field_course import read_header, read_tensors, restore_heads
from numbanet.app.fields.learner import UPDATE_EVERY
from numbanet.snapshot import SnapshotError, open_snapshot


def load_field(
    path: str | os.PathLike[str], device: Any = "auto", precision: str | None = None
) -> RadianceField:
    """Load the field of a snapshot that learn-field wrote.

    Its parts are models, `density` and `colour`; `picture` renders the view of a camera, with
    positions in the field's [0, 1]^3.

    Args:
        device, precision: as for numbanet.create_from_config.

    Raises:
        SnapshotError, ConfigError: the file is damaged, or something else.
        OSError: the file cannot be read.
        ValueError, RuntimeError: the device cannot be used.
    """
    job, course, steps = read_header(path)
    with open_snapshot(path) as file:
        gains = file.shape("gains")
    if len(gains) != 2:
        raise SnapshotError(f"{path}: the snapshot has no gains of cameras")
    tensors = read_tensors(path, job, gains[0])
    field = RadianceField(job.config, job.seed, device, precision)
    restore_heads(path, field, tensors, steps)
    field.target.copy_from_host(field.grid.densities, tensors["grid.densities"])
    if course.step > UPDATE_EVERY:  # before that, all cells are occupied
        field.show_grid()
    return field
