"""The course of a training as one picture."""

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from numbanet.app.files import write_file

# One colour a quantity, distinguishable with any colour vision.
LOSS, PSNR = "#0072b2", "#d55e00"


def write_curves(
    path: Path, losses: list[tuple[int, float]], psnrs: list[tuple[int, float]], title: str
) -> None:
    """Draw loss and PSNR over the training steps, the steps on a logarithmic axis.

    The title may hold the name of a file, with dollar signs or bytes that are not UTF-8.
    """
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    printable = os.fsencode(title).decode("utf-8", "replace")
    figure.suptitle(printable, parse_math=False)
    left, right = figure.subplots(1, 2)
    draw(left, losses, LOSS, "loss of a batch")
    left.set_yscale("log")
    draw(right, psnrs, PSNR, "PSNR of the picture (dB)", marker="o")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_file(path, content.getvalue())


def draw(axes, points, colour, label, **style) -> None:
    points = [point for point in points if point[0] > 0]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, markersize=4, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training steps")
    axes.set_ylabel(label)
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
