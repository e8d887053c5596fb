"""Plot of the course of a training."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from numbanet.app.files import write_file

# One colour a quantity, distinguishable with any colour vision.
LOSS, METRIC = "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Curve:
    """Metric of a plot.

    Args:
        name: of the metric.
        label: of its axis.
    """

    name: str
    label: str


def write_curves(
    path: Path, losses: tuple[list, str], metrics: tuple[list, Curve], title: str
) -> None:
    """Draw the loss and a metric over the training steps, the steps on a logarithmic axis.

    The title may hold the name of a file, with dollar signs or bytes that are not UTF-8.

    Args:
        losses: points (step, value), and the name of the loss.
        metrics: points (step, value), and their metric.
    """
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    printable = os.fsencode(title).decode("utf-8", "replace")
    figure.suptitle(printable, parse_math=False)
    left, right = figure.subplots(1, 2)
    points, label = losses
    draw(left, points, LOSS, label)
    left.set_yscale("log")
    points, curve = metrics
    draw(right, points, METRIC, curve.label, marker="o")
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
