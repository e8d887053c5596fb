"""Start of learn-image: a photograph, with a new model or that of a snapshot."""

import math
from pathlib import Path

from numbanet.app.arguments import check_number, read_config
from numbanet.app.errors import UsageError
from numbanet.app.image_course import ImageCourse, Job, read_metadata
from numbanet.app.image_file import MOST_PIXELS, read_photograph
from numbanet.app.image_training import ImageTraining
from numbanet.app.photograph import Photograph
from numbanet.app.resuming import (
    check_batch_size,
    check_same,
    check_steps_left,
    create,
    load_saved,
)
from numbanet.random import Pcg32

DEFAULT_BATCH_SIZE = 1 << 14
DEFAULT_SEED = 1337


def checked_photograph(
    image: str | Path, max_pixels: int | None, white: float | None
) -> Photograph:
    """Read a photograph; raises UsageError where an option of learn_image is not allowed."""
    max_pixels = MOST_PIXELS if max_pixels is None else max_pixels
    check_number("max pixels", max_pixels, 1, 2**40)
    if white is not None and not 0 < white < math.inf:
        raise UsageError(f"white: {white!r} is not allowed; use a positive number")
    return read_photograph(image, max_pixels, white)


def started(photograph, config, *, batch_size, seed, device, precision) -> ImageTraining:
    """Training at step 0."""
    config = read_config(config)
    seed = DEFAULT_SEED if seed is None else int(seed)
    batch_size = DEFAULT_BATCH_SIZE if batch_size is None else int(batch_size)
    model = create(2, 3, config, seed=seed, device=device, precision=precision)
    job = Job(photograph.digest, model.trainer.config(), batch_size, seed)
    return ImageTraining(photograph, job, model, Pcg32(seed), ImageCourse())


def continued(
    photograph, config, n_steps, path, *, batch_size, seed, device, precision
) -> ImageTraining:
    """Training that a snapshot of the same job holds."""
    model, job, course = load_saved(path, device, precision, read_metadata, "learn-image")
    check_batch_size(path, batch_size, job.batch_size, "positions")
    if config is not None:
        config = create(2, 3, read_config(config)).trainer.config()
    check_same(
        path,
        {
            "of another image": (photograph.digest, job.image_digest),
            "with another config": (config, job.config),
            f"with batch size {job.batch_size}": (batch_size, job.batch_size),
            f"with seed {job.seed}": (seed, job.seed),
        },
    )
    check_steps_left(path, n_steps, course.step)
    return ImageTraining(photograph, job, model, Pcg32.from_state(course.rng_state), course)
