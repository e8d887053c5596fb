"""Learn a surface: a network that maps a point to its signed distance."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numbanet.app.arguments import check_number
from numbanet.app.errors import UsageError
from numbanet.shown import shown

if TYPE_CHECKING:
    from numbanet.app.result import JobResult
    from numbanet.progress import SilentProgress

FINEST_MESH = 1024
LARGEST_WEIGHT = 1e30


def learn_surface(
    shape: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    n_steps: int = 1000,
    batch_size: int | None = None,
    seed: int | None = None,
    eikonal: float | None = None,
    mesh_resolution: int = 128,
    device: Any = "auto",
    precision: str | None = None,
    output: str | Path = "learned",
    resume: str | Path | None = None,
    view: bool | tuple[str, int] = False,
    view_stay: bool = False,
    progress: "SilentProgress | None" = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> "JobResult":
    """Train a network on the signed distance of a surface; write pictures, a mesh and a report.

    Args:
        shape: an OBJ, PLY or STL file, or the name of a formula: sphere, torus, box, capsule,
            links.
        config: a JSON file or its content; by default a hash grid with a small network.
        n_steps: steps in all, those before a resumed snapshot included.
        batch_size: points per step; 16384 by default.
        seed: of the initial parameters and of the points; 1337 by default.
        eikonal: weight of a term that makes gradients as long as 1; 0 by default.
        mesh_resolution: cells along each side for marching cubes; 0 for no mesh.
        device, precision: as for numbanet.create_from_config.
        output: directory to write to; it is created.
        resume: a snapshot of the same job to continue; gives the defaults of the other options.
        view: True for a page in the browser that shows the training, on this machine alone, or
            the host and port where it is.
        view_stay: keep that page after the training, until `interrupted` is true or Ctrl-C.
        interrupted: asked after each step; when true, the training ends early as if finished.

    Returns:
        What was reached, the intersection over union ("iou") and the mean distance among it, and
        the files that were written.

    Raises:
        UsageError: something that was asked for cannot be done.
        AppError: something went wrong outside the program, such as a full disk.
    """
    from numbanet.app.measured_learning import Asked
    from numbanet.app.surfaces.training import SurfaceLearning

    mesh_resolution = check_number("mesh resolution", mesh_resolution, 0, FINEST_MESH + 1)
    if eikonal is not None:
        is_number = isinstance(eikonal, (int, float, np.integer, np.floating))
        if not (is_number and 0 <= eikonal <= LARGEST_WEIGHT):
            raise UsageError(
                f"eikonal: {shown(eikonal)} is not allowed; use 0 to {LARGEST_WEIGHT:g}"
            )
        eikonal = float(eikonal)
    asked = Asked(
        config, n_steps, batch_size, seed, device, precision, resume, {"eikonal": eikonal}
    )
    asked.check()
    learning = SurfaceLearning.begun(surface_of(shape), asked)
    learning.mesh_resolution = mesh_resolution
    return learning.run_in(
        output, n_steps, progress, interrupted, learning.data.note, view, view_stay
    )


def surface_of(shape: str | Path) -> Any:
    """Formula of that name, or mesh of that file."""
    from numbanet.app.surfaces.formulas import SHAPES, Formula
    from numbanet.app.surfaces.mesh_file import read_mesh

    if str(shape) in SHAPES:
        return Formula(str(shape))
    if not Path(shape).suffix:
        names = ", ".join(SHAPES)
        raise UsageError(f"'{shape}' is neither a file of a mesh nor one of {names}")
    return read_mesh(shape)
