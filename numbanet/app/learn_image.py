"""Learn a photograph: a network that maps a position in the image to its colour."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numbanet
from numbanet.app.arguments import check_number, read_config
from numbanet.app.course import picture_name
from numbanet.app.errors import AppError, UsageError
from numbanet.app.files import writing
from numbanet.app.image_course import ImageCourse, Job, read_metadata
from numbanet.app.image_file import MOST_PIXELS, read_photograph
from numbanet.app.image_training import FILES, ImageTraining, Result
from numbanet.app.learning import PICTURE_STEPS
from numbanet.app.photograph import Photograph
from numbanet.app.pictures import Picture, write_picture
from numbanet.cuda.errors import CudaError
from numbanet.progress import SilentProgress
from numbanet.random import Pcg32
from numbanet.regular_file import check_regular

DEFAULT_CONFIG = {
    "loss": {"otype": "RelativeL2"},
    "optimizer": {
        "otype": "Adam",
        "learning_rate": 1e-2,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-15,
        "l2_reg": 1e-6,
    },
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 15,
        "base_resolution": 16,
        "per_level_scale": 1.5,
    },
    "network": {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": 64,
        "n_hidden_layers": 2,
    },
}
DEFAULT_BATCH_SIZE = 1 << 14
MOST_UNASKED = 1 << 24  # of a batch; a snapshot alone starts no larger ones, which take gigabytes
DEFAULT_SEED = 1337


def learn_image(
    image: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    n_steps: int = 1000,
    batch_size: int | None = None,
    seed: int | None = None,
    device: Any = "auto",
    precision: str | None = None,
    output: str | Path = "learned",
    resume: str | Path | None = None,
    max_pixels: int | None = None,
    white: float | None = None,
    progress: SilentProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a network on a photograph and write pictures, curves, a report and a snapshot.

    Args:
        config: a JSON file or its content; by default a hash grid with a small network.
        n_steps: steps in all, those before a resumed snapshot included.
        batch_size: positions per step; 16384 by default.
        device, precision: as for numbanet.create_from_config.
        seed: of the initial parameters and of the positions; 1337 by default.
        output: directory to write to; it is created.
        resume: a snapshot of the same job to continue; gives the defaults of the other options.
        max_pixels: larger images are refused before they take memory; 100 million by default.
        white: the value of white in an image with more than 8 bits a value; by default it is told
            from the file and its largest value.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    check_number("steps", n_steps, 0)
    check_number("batch size", 1 if batch_size is None else batch_size, 1)
    check_number("seed", 0 if seed is None else seed, 0, 2**32)
    photograph = checked_photograph(image, max_pixels, white)
    if config is not None:
        config = read_config(config)
    if resume is None:
        training = started(photograph, config, batch_size, seed, device, precision)
    else:
        training = continued(photograph, config, batch_size, seed, device, precision, resume)
        if n_steps <= training.course.step:
            raise UsageError(
                f"'{resume}' has made {training.course.step} steps already; ask for more --steps"
            )
    training.output = Path(output)
    with writing(training.output):
        training.output.mkdir(parents=True, exist_ok=True)
    check_places(training.output, n_steps)
    write_reference(training.output / "reference.png", photograph)
    try:
        with progress or SilentProgress() as shown:
            if photograph.note:
                shown.say(photograph.note)
            return training.run(n_steps, shown, interrupted)
    except CudaError as error:
        raise AppError(str(error)) from error


def checked_photograph(
    image: str | Path, max_pixels: int | None, white: float | None
) -> Photograph:
    """Read a photograph; raises UsageError where an option of learn_image is not allowed."""
    max_pixels = MOST_PIXELS if max_pixels is None else max_pixels
    check_number("max pixels", max_pixels, 1, 2**40)
    if white is not None and not 0 < white < math.inf:
        raise UsageError(f"white: {white!r} is not allowed; use a positive number")
    return read_photograph(image, max_pixels, white)


def check_places(output: Path, n_steps: int) -> None:
    """Raise AppError, before the training, where something is in the way of a file of it."""
    pictures = [picture_name(step) for step in (*PICTURE_STEPS, n_steps) if step <= n_steps]
    for name in (*FILES.values(), *pictures):
        path = output / name
        with writing(path), suppress(FileNotFoundError):
            check_regular(path.stat().st_mode, str(path))


def write_reference(path: Path, photograph: Photograph) -> None:
    """Write the photograph as it was read."""
    picture = Picture(photograph.width, photograph.height)
    for first, last in photograph.strips():
        picture.draw(first, photograph.encoded(first, last))
    write_picture(path, picture.image)


def started(photograph, config, batch_size, seed, device, precision) -> ImageTraining:
    """A training at step 0."""
    config = DEFAULT_CONFIG if config is None else config
    seed = DEFAULT_SEED if seed is None else int(seed)
    batch_size = DEFAULT_BATCH_SIZE if batch_size is None else int(batch_size)
    model = create(config, seed=seed, device=device, precision=precision)
    job = Job(photograph.digest, model.trainer.config(), batch_size, seed)
    return ImageTraining(photograph, job, model, Pcg32(seed), ImageCourse())


def create(config, **options) -> numbanet.TrainableModel:
    try:
        return numbanet.create_from_config(2, 3, config, on_nonfinite="raise", **options)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(str(error)) from error


def continued(photograph, config, batch_size, seed, device, precision, path) -> ImageTraining:
    """The training that a snapshot holds, if it is one of this job."""
    try:
        model = numbanet.load(path, device=device, precision=precision, on_nonfinite="raise")
        job, course = read_metadata(model.metadata)
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise UsageError(f"'{path}' was not saved by learn-image and cannot be resumed") from error
    if batch_size is None and job.batch_size > MOST_UNASKED:
        raise UsageError(
            f"'{path}' asks for {job.batch_size} positions per step; to allow it: "
            f"--batch-size {job.batch_size}"
        )
    if config is not None:
        config = create(config).trainer.config()
    pairs = {
        "of another image": (photograph.digest, job.image_digest),
        "with another config": (config, job.config),
        f"with batch size {job.batch_size}": (batch_size, job.batch_size),
        f"with seed {job.seed}": (seed, job.seed),
    }
    for description, (asked, saved) in pairs.items():
        if asked is not None and asked != saved:
            raise UsageError(f"'{path}' was saved by a training {description}; it cannot change")
    return ImageTraining(photograph, job, model, Pcg32.from_state(course.rng_state), course)
