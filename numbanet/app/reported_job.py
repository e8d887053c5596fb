"""Reports of a job: a snapshot, a line of progress, figures and its result."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from numbanet.app.course import Course
from numbanet.app.environment import environment, processor
from numbanet.app.files import writing
from numbanet.app.result import FILES, SNAPSHOT, JobResult
from numbanet.progress import Status
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget


class ReportedJob:
    """State of a job, and its reports.

    Args:
        job: a dataclass of the options that determine the training.
        metadata_key: under which a snapshot has job and course.
    """

    metadata_key: str
    samples_name = "samples"

    def __init__(self, job: Any, model: Any, rng: Pcg32, course: Course):
        self.job, self.model, self.rng, self.course = job, model, rng, course
        self.output = Path()
        self.compile_seconds = 0.0

    @property
    def steps_done(self) -> int:
        return self.course.step

    @property
    def target(self) -> AbstractTarget:
        return self.model.network.target

    @property
    def on_cpu(self) -> bool:
        return self.target.name == "cpu"

    @property
    def shown(self) -> tuple[str, ...]:
        """Phrases on the last evaluation, for a line of progress."""
        return ()

    def save(self) -> None:
        self.course.rng_state = self.rng.state
        saved = {"job": asdict(self.job), "course": asdict(self.course)}
        path = self.output / SNAPSHOT
        with writing(path):
            self.model.save(path, metadata={self.metadata_key: saved})

    @property
    def samples_per_second(self) -> float:
        return self.course.steps_per_second * self.job.batch_size

    @property
    def loss_name(self) -> str:
        return f"{self.model.trainer.loss.otype} loss of a batch"

    def kept_pictures(self) -> list[tuple[Path, int]]:
        """Pictures that are still there, each with its step."""
        pictures = [(self.output / name, step) for step, name in self.course.pictures]
        return [(path, step) for path, step in pictures if path.exists()]

    def result(
        self, n_steps: int, metrics: dict[str, float], labelled: list[tuple[Path, str]],
        others: tuple[Path, ...] = (), kind: type[JobResult] = JobResult,
    ) -> Any:  # fmt: skip
        """Result of the job, with these pictures and other files."""
        course = self.course
        return kind(
            course.step, course.step >= n_steps, course.loss, metrics, self.samples_per_second,
            tuple(path for path, _ in labelled), others=others,
            **{name: self.output / file for name, file in FILES.items()},
        )  # fmt: skip

    def figures(self, n_steps: int, total_seconds: float) -> dict[str, Any]:
        """Figures that every report contains: model, steps, loss, timings, environment."""
        course, network = self.course, self.model.network
        return {
            "model": {
                "n_params": network.n_params,
                "device": network.device,
                "device_name": processor() if self.on_cpu else self.target.device.name,
                "precision": network.precision,
            },
            "steps": {"asked": n_steps, "made": course.step, "finished": course.step >= n_steps},
            "loss": course.loss if course.losses else None,
            "timings": {
                "compile_seconds": self.compile_seconds,
                "training_seconds": course.training_seconds,
                "timed_steps": course.timed_steps,
                "samples_per_second": self.samples_per_second,
                "total_seconds": total_seconds,
            },
            "environment": environment(),
        }

    def status(self, n_steps: int) -> Status:
        rate = self.samples_per_second
        more = (*self.shown, f"{rate / 1e6:.2f} M {self.samples_name}/s") if rate else self.shown
        return Status(self.course.step, n_steps, self.course.loss, more)
