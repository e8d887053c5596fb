"""The training of a network on a photograph: steps, measurements, pictures.

Each step draws random positions in [0, 1)^2 and looks up their colours in linear light, between the
pixel centres by bilinear interpolation. Pictures are the network's colours at the pixel centres.
Their PSNR compares displayed values (gamma-encoded, clamped to [0, 1], not rounded to 8 bits) with
those of the photograph; the report also has it for linear light.

Training time is what passes between the evaluations: drawing positions, looking up colours, steps,
now and then reading a loss.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import numbanet
from numbanet.app.bilinear import colours_of
from numbanet.app.course import picture_due, picture_name
from numbanet.app.curves import Curve, write_curves
from numbanet.app.files import write_json
from numbanet.app.image_course import METADATA_KEY, ImageCourse, Job
from numbanet.app.learning import Learning
from numbanet.app.photograph import Photograph, to_encoded
from numbanet.app.pictures import (
    ERROR_SCALE,
    Picture,
    contact_sheet,
    detail,
    enlarged,
    error_map,
    psnr,
    squared_error,
    write_picture,
)
from numbanet.app.result import REFERENCE, JobResult
from numbanet.random import Pcg32
from numbanet.volumes.cameras import Camera

PSNR = Curve("psnr", "PSNR of the picture (dB)")


class Result(JobResult):
    """Outcome of a training on a photograph."""

    @property
    def psnr(self) -> float:
        return self.metrics["psnr"]

    @property
    def measures(self) -> str:
        return f"{self.psnr:.2f} dB"


class ImageTraining(Learning):
    """Training on a photograph."""

    metadata_key = METADATA_KEY
    view_centre = (0.0, 0.0, 0.0)
    course: ImageCourse

    def __init__(self, photograph: Photograph, job: Job, model: Any, rng: Pcg32, course: Any):
        super().__init__(job, model, rng, course)
        self.photograph = photograph

    @cached_property
    def colours_at(self) -> Callable[[Any], Any]:
        """Function from positions to the photograph's colours, on the target."""
        return colours_of(self.photograph, self.target)

    def write_reference(self) -> None:
        """Write the photograph as it was read."""
        photograph = self.photograph
        picture = Picture(photograph.width, photograph.height)
        for first, last in photograph.strips():
            picture.draw(first, photograph.encoded(first, last))
        write_picture(self.output / REFERENCE, picture.image)

    def prepare(self) -> None:
        self.model(self.photograph.centres(0, 1))

    def training_step(self) -> numbanet.Loss:
        batch_size = self.job.batch_size
        positions = self.rng.device_uniform(2 * batch_size, self.target).reshape(batch_size, 2)
        return self.model.trainer.training_step(positions, self.colours_at(positions))

    @property
    def shown(self) -> tuple[str, ...]:
        psnr = self.course.psnr
        return () if math.isnan(psnr) else (f"{psnr:.1f} dB",)

    def strip(self, first: int, last: int) -> np.ndarray:
        """Rows of the network's picture in linear light, [rows, width, 3]."""
        colours = self.model(self.photograph.centres(first, last))
        colours = self.target.to_host(colours)  # waits for a GPU
        return colours.reshape(last - first, self.photograph.width, 3)

    def camera(self, width: int, height: int) -> Camera:
        """Camera in front of the picture, which stands upright in the plane y = 0, its width 1."""
        tall = max(self.photograph.height / self.photograph.width, 1)
        return Camera.looking((0, 0, 0), (0, -1.4 * tall, 0), width, height, angle=0.75)

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Render the upright picture; between its pixels the network interpolates."""
        rays = camera.resized(width, height).rays("cpu")
        origins, directions = (np.asarray(each) for each in rays)
        forward = np.where(np.abs(directions[:, 1]) < 1e-6, np.float32(1e-6), directions[:, 1])
        depths = -origins[:, 1] / forward
        x = origins[:, 0] + depths * directions[:, 0] + np.float32(0.5)
        z = origins[:, 2] + depths * directions[:, 2]
        y = np.float32(0.5) - z * np.float32(self.photograph.width / self.photograph.height)
        met = (depths > 0) & (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
        seen = np.full((len(x), 3), 0.93, np.float32)
        positions = np.stack([x[met], y[met]], axis=1).astype(np.float32)
        if len(positions):
            seen[met] = to_encoded(self.target.to_host(self.model(positions)))
        return seen.reshape(height, width, 3)

    def evaluate(self, keep: bool = False) -> None:
        """Measure the PSNR; at powers of ten, or to `keep`, write picture and snapshot too."""
        course, photograph = self.course, self.photograph
        keep = keep or picture_due(course.step)
        picture = Picture(photograph.width, photograph.height) if keep else None
        displayed = in_light = 0.0
        for first, last in photograph.strips():
            linear = self.strip(first, last)
            encoded = to_encoded(linear)
            displayed += squared_error(encoded, photograph.encoded(first, last))
            in_light += squared_error(np.clip(linear, 0, 1), photograph.linear(first, last))
            if picture is not None:
                picture.draw(first, encoded)
        n = 3 * photograph.height * photograph.width
        course.psnrs.append((course.step, psnr(displayed, n), psnr(in_light, n)))
        if picture is not None:
            name = picture_name(course.step)
            write_picture(self.output / name, picture.image)
            course.pictures.append((course.step, name))
            self.save()

    def finish(self, n_steps: int, total_seconds: float) -> Result:
        """Write the final files, and return the result."""
        course, photograph, pictures = self.course, self.photograph, self.kept_pictures()
        displayed = {step: value for step, value, _ in course.psnrs}
        labelled = [(path, f"step {step}: {displayed[step]:.1f} dB") for path, step in pictures]
        labelled.append((self.output / REFERENCE, "reference"))
        result = self.result(n_steps, {"psnr": course.psnr}, labelled, kind=Result)
        most = photograph.width * photograph.height
        sheet = [*labelled, *self.close_look(labelled[-2][0], most)] if pictures else labelled
        columns = min(max(len(labelled), 3), 6)
        made = contact_sheet(sheet, columns=columns, max_pixels=most)
        write_picture(result.contact_sheet, made)
        title = f"{photograph.path.name}: {course.step} steps of {self.job.batch_size} samples"
        points = list(displayed.items()), PSNR
        write_curves(result.curves, (course.losses, self.loss_name), points, title)
        report = self.report(result, n_steps, total_seconds)
        write_json(result.report, report)
        return result

    def close_look(self, last: Path, max_pixels: int) -> list[tuple[Image.Image, str]]:
        """Error map of the last picture, and enlarged details of it and of the reference."""
        reference = self.output / REFERENCE
        part = detail(reference, max_pixels)
        return [
            (error_map(last, reference, max_pixels), f"error x {ERROR_SCALE}"),
            (enlarged(last, part, max_pixels), "enlarged: last step"),
            (enlarged(reference, part, max_pixels), "enlarged: reference"),
        ]

    def report(self, result: Result, n_steps: int, total_seconds: float) -> dict[str, Any]:
        """The report of the training, ready for JSON."""
        course, photograph = self.course, self.photograph
        return {
            "job": asdict(self.job),
            "image": {
                "path": str(photograph.path),
                "width": photograph.width,
                "height": photograph.height,
                "white": photograph.white,
            },
            **self.figures(n_steps, total_seconds),
            "psnr": course.psnr,
            "psnr_linear": course.psnrs[-1][2],
            "losses": [{"step": step, "loss": value} for step, value in course.losses],
            "psnrs": [
                {"step": step, "psnr": displayed, "psnr_linear": linear}
                for step, displayed, linear in course.psnrs
            ],
            "files": [path.name for path in result.files],
        }
