"""Result of a job: what it reached, and the files that it wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAPSHOT = "snapshot.safetensors"
FILES = {  # fields of a result; pictures and what a job adds come on top
    "contact_sheet": "contact_sheet.png",
    "curves": "curves.png",
    "report": "report.json",
    "snapshot": SNAPSHOT,
}
REFERENCE = "reference.png"


@dataclass(frozen=True)
class JobResult:
    """Outcome of a job, and the files it wrote; `metrics` are those of the last evaluation."""

    step: int
    finished: bool
    loss: float
    metrics: dict[str, float]
    samples_per_second: float
    pictures: tuple[Path, ...]
    contact_sheet: Path
    curves: Path
    report: Path
    snapshot: Path
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        written = self.contact_sheet, self.curves, self.report, self.snapshot
        return (*self.pictures, *self.others, *written)

    @property
    def measures(self) -> str:
        """The quality as text, for a person."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())

    def for_programs(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "step": self.step,
            "finished": self.finished,
            "loss": self.loss,
            **self.metrics,
            "samples_per_second": self.samples_per_second,
            "files": [str(path) for path in self.files],
        }
