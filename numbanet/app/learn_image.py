"""Learn a photograph: a network that maps a position in the image to its colour."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numbanet.app.arguments import check_number

if TYPE_CHECKING:
    from numbanet.app.image_training import Result
    from numbanet.progress import SilentProgress

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
    view: bool | tuple[str, int] = False,
    view_stay: bool = False,
    progress: "SilentProgress | None" = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> "Result":
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
        view: True for a page in the browser that shows the training, on this machine alone, or
            the host and port where it is.
        view_stay: keep that page after the training, until `interrupted` is true or Ctrl-C.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    from numbanet.app import image_job

    check_number("steps", n_steps, 0)
    check_number("batch size", 1 if batch_size is None else batch_size, 1)
    check_number("seed", 0 if seed is None else seed, 0, 2**32)
    photograph = image_job.checked_photograph(image, max_pixels, white)
    options = {"batch_size": batch_size, "seed": seed, "device": device, "precision": precision}
    if resume is None:
        config = DEFAULT_CONFIG if config is None else config
        training = image_job.started(photograph, config, **options)
    else:
        training = image_job.continued(photograph, config, n_steps, resume, **options)
    return training.run_in(output, n_steps, progress, interrupted, photograph.note, view, view_stay)
