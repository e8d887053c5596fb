"""The training of a radiance field: steps, measurements, pictures, a report.

Held-out views are measured as they are displayed, on the background that training shows: PSNR and
SSIM, one view at milestones and all of them at the end. Training time is as in numbanet.history.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from numbanet.app.course import picture_due, picture_name
from numbanet.app.curves import Curve, write_curves
from numbanet.app.fields import field_course
from numbanet.app.fields.field_course import FieldCourse, Job
from numbanet.app.fields.learner import FieldLearner
from numbanet.app.fields.quality import ssim
from numbanet.app.fields.scene_data import SceneData
from numbanet.app.fields.views import as_host
from numbanet.app.files import write_json, writing
from numbanet.app.learning import Learning
from numbanet.app.pictures import contact_sheet, psnr, squared_error, write_picture
from numbanet.app.result import REFERENCE, SNAPSHOT, JobResult
from numbanet.volumes import Camera

VIEWS = "views.png"
PSNR = Curve("psnr", "PSNR of a held-out view (dB)")
MOST_SHOWN = 6  # views on a sheet
ERROR_SCALE = 4.0  # of the absolute error, for a picture of it


class Result(JobResult):
    """Outcome of a training on a scene; PSNR and SSIM are means over held-out views."""

    @property
    def psnr(self) -> float:
        return self.metrics["psnr"]

    @property
    def ssim(self) -> float:
        return self.metrics["ssim"]

    @property
    def rays_per_second(self) -> float:
        return self.metrics["rays_per_second"]

    @property
    def views(self) -> Path:
        return self.others[0]

    @property
    def measures(self) -> str:
        rate = self.rays_per_second / 1e3
        return f"held-out views {self.psnr:.2f} dB, SSIM {self.ssim:.3f}, {rate:.0f} k rays/s"


class FieldTraining(Learning):
    """Training on a scene."""

    metadata_key = field_course.KIND
    samples_name = "samples"
    course: FieldCourse

    def __init__(self, scene: SceneData, job: Job, learner: FieldLearner, course: FieldCourse):
        super().__init__(job, learner.field.density, learner.rng, course)
        learner.field.colour.trainer.on_nonfinite = self.model.trainer.on_nonfinite
        self.scene, self.learner = scene, learner

    def write_reference(self) -> None:
        write_picture(self.output / REFERENCE, as_image(self.reference(0)))

    def places(self, n_steps: int) -> list[str]:
        return [*super().places(n_steps), VIEWS]

    def prepare(self) -> None:
        self.learner.picture(self.scene.test.cameras[0], 8, 8)

    def training_step(self) -> Any:
        loss = self.learner.step()
        for name in ("n_rays", "all_rays", "n_samples"):
            setattr(self.course, name, getattr(self.learner, name))
        return loss

    def camera(self, width: int, height: int) -> Camera:
        return self.scene.test.cameras[0].resized(width, height)

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Render the field in its present state, float32 [height, width, 3] in [0, 1]."""
        return self.learner.picture(camera, width, height)

    def check_skipped(self) -> None:
        super().check_skipped()
        if self.learner.field.colour.trainer.n_skipped_steps:
            raise self.diverged(self.course.step, "a gradient has become infinite or NaN")

    @property
    def shown(self) -> tuple[str, ...]:
        value = self.course.psnr
        return () if math.isnan(value) else (f"{value:.1f} dB",)

    @property
    def samples_per_second(self) -> float:
        return self.course.steps_per_second * self.learner.samples_per_step

    def reference(self, k: int) -> np.ndarray:
        """Held-out view k on the chosen background, float32 [height, width, 3]."""
        camera = self.scene.test.cameras[k]
        words = as_host(self.scene.test.pixels[k]).astype("<u4", copy=False)
        rgba = words.view(np.uint8).reshape(camera.height, camera.width, 4) / np.float32(255)
        opacity, background = rgba[..., 3:], np.array(self.learner.shown_background, np.float32)
        return rgba[..., :3] * opacity + (1 - opacity) * background

    def seen(self, k: int) -> np.ndarray:
        """Render the field from the camera of held-out view k."""
        camera = self.scene.test.cameras[k]
        return self.learner.picture(camera, camera.width, camera.height)

    def evaluate(self, keep: bool = False) -> None:
        """Measure a held-out view; at powers of ten, or to `keep`, write picture and snapshot."""
        course, reference = self.course, self.reference(0)
        picture = self.seen(0)
        course.psnrs.append((course.step, psnr_of(picture, reference)))
        if keep or picture_due(course.step):
            name = picture_name(course.step)
            write_picture(self.output / name, as_image(picture))
            course.pictures.append((course.step, name))
            self.save()

    def save(self) -> None:
        self.course.rng_state = self.rng.state
        self.course.last_kept = self.learner.last_kept()
        path = self.output / SNAPSHOT
        with writing(path):
            field_course.write(path, self.learner, self.job, self.course)

    def measured(self) -> tuple[list[dict[str, float]], list[tuple[np.ndarray, np.ndarray]]]:
        """PSNR and SSIM of all held-out views; and for the first few, both pictures."""
        found, shown = [], []
        for k in range(len(self.scene.test)):
            picture, reference = self.seen(k), self.reference(k)
            found.append({"psnr": psnr_of(picture, reference), "ssim": ssim(picture, reference)})
            if k < MOST_SHOWN:
                shown.append((picture, reference))
        return found, shown

    def finish(self, n_steps: int, total_seconds: float) -> Result:
        """Measure all held-out views, write the final files, and return the result."""
        course, (found, shown), values = self.course, self.measured(), dict(self.course.psnrs)
        pictures = self.kept_pictures()
        labelled = [(path, f"step {step}: {values[step]:.1f} dB") for path, step in pictures]
        labelled.append((self.output / REFERENCE, "held-out view"))
        metrics = {
            "psnr": float(np.mean([each["psnr"] for each in found])),
            "ssim": float(np.mean([each["ssim"] for each in found])),
            "rays_per_second": (
                course.steps_per_second * self.learner.all_rays / max(course.step, 1)
            ),
        }
        others = (self.output / VIEWS,)
        result = self.result(n_steps, metrics, labelled, others, Result)
        write_picture(result.contact_sheet, contact_sheet(labelled))
        write_picture(result.views, sheet_of(shown))
        title = f"{self.scene.name}: {course.step} steps of about {self.job.batch_size} samples"
        losses = course.losses, "mean squared error of a batch"
        write_curves(result.curves, losses, (course.psnrs, PSNR), title)
        report = self.report(result, found, n_steps, total_seconds)
        write_json(result.report, report)
        return result

    def report(
        self, result: Result, found: list[dict[str, float]], n_steps: int, total_seconds: float
    ) -> dict[str, Any]:
        """The report of the training, ready for JSON."""
        course, field, test = self.course, self.learner.field, self.scene.test
        figures = self.figures(n_steps, total_seconds)
        figures["model"]["n_params"] += field.colour.network.n_params
        figures["model"]["occupied"] = float(field.grid.occupied().mean())
        figures["timings"]["rays_per_second"] = result.rays_per_second
        return {
            "job": asdict(self.job),
            "scene": {
                "name": self.scene.name,
                "training_views": len(self.scene.train),
                "test_views": len(test),
                "width": test.cameras[0].width,
                "height": test.cameras[0].height,
                "background": self.job.background,
            },
            **figures,
            "psnr": result.psnr,
            "ssim": result.ssim,
            "views": found,
            "losses": [{"step": step, "loss": value} for step, value in course.losses],
            "psnrs": [{"step": step, "psnr": value} for step, value in course.psnrs],
            "files": [path.name for path in result.files],
        }


def psnr_of(picture: np.ndarray, reference: np.ndarray) -> float:
    return psnr(squared_error(picture, reference), reference.size)


def as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def error_map(picture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Error map: white for equal pixels, black where they differ by 1 / ERROR_SCALE or more."""
    error = np.abs(picture - reference).mean(axis=2, keepdims=True)
    return np.repeat(1 - ERROR_SCALE * error, 3, axis=2)


def sheet_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Image.Image:
    """Contact sheet with rows of learned and given pictures, and of errors times ERROR_SCALE."""
    height, width = pairs[0][0].shape[:2]
    pairs = [(a, b) for a, b in pairs if a.shape[:2] == (height, width)]
    rows = [
        np.concatenate(row, axis=1)
        for row in (
            [a for a, _ in pairs], [b for _, b in pairs],
            [error_map(a, b) for a, b in pairs],
        )
    ]  # fmt: skip
    return as_image(np.concatenate(rows))
