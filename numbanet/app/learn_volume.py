"""Learn a volume: a network that maps a position, or a time and a position, to a value."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numbanet.app.result import JobResult
    from numbanet.progress import SilentProgress


def learn_volume(
    file: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    n_steps: int = 1000,
    batch_size: int | None = None,
    seed: int | None = None,
    device: Any = "auto",
    precision: str | None = None,
    output: str | Path = "learned",
    resume: str | Path | None = None,
    view: bool | tuple[str, int] = False,
    view_stay: bool = False,
    progress: "SilentProgress | None" = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> "JobResult":
    """Compress a volume, or a time series, to a network; write slices, error maps and a report.

    Args:
        file: an .npy file of real numbers, [z, y, x] or [t, z, y, x].
        config: a JSON file or its content; by default a hash grid that takes an eighth of the
            file's bytes, as float32, with a small network.
        n_steps: steps in all, those before a resumed snapshot included.
        batch_size: voxels per step; 16384 by default.
        seed: of the initial parameters and of the voxels; 1337 by default.
        device, precision: as for numbanet.create_from_config.
        output: directory to write to; it is created.
        resume: a snapshot of the same job to continue; gives the defaults of the other options.
        view: True for a page in the browser that shows the training, on this machine alone, or
            the host and port where it is.
        view_stay: keep that page after the training, until `interrupted` is true or Ctrl-C.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Returns:
        What was reached, the PSNR in decibels ("psnr") and the ratio of bytes ("ratio") among it,
        and the files that were written.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    from numbanet.app.measured_learning import Asked
    from numbanet.app.volume_file import read_volume
    from numbanet.app.volume_training import VolumeLearning

    asked = Asked(config, n_steps, batch_size, seed, device, precision, resume)
    asked.check()
    learning = VolumeLearning.begun(read_volume(file), asked)
    return learning.run_in(output, n_steps, progress, interrupted, view=view, view_stay=view_stay)
