"""Progress displays of a training: silent, plain lines, or a live bar."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Status:
    """Figures to show after a step."""

    step: int
    n_steps: int
    loss: float
    more: tuple[str, ...] = ()  # further text

    def __str__(self) -> str:
        return "  ".join([f"loss {self.loss:.3g}", *self.more])


class SilentProgress(AbstractContextManager):
    """Progress that shows nothing; base of the others."""

    over = False  # whether the last step is made

    def __exit__(self, *exception) -> None:
        pass

    def compiling(self) -> AbstractContextManager:
        """Context for the work before the first step."""
        return nullcontext()

    def training(self, first_step: int, n_steps: int) -> None:
        """Called once, when the steps begin to run at full speed."""

    def show(self, status: Status, *, milestone: bool) -> None:
        """Called after each step; milestones are the few steps worth a line of their own."""

    def say(self, text: str) -> None:
        """Show a line that stays."""


class LineProgress(SilentProgress):
    """Progress as lines at milestones, for logs."""

    def __init__(self):
        self.start = time.perf_counter()
        self.first_step = 0

    def compiling(self) -> AbstractContextManager:
        self.say("compiling (once; later runs reuse the compiled code)")
        return super().compiling()

    def training(self, first_step, n_steps):
        self.start, self.first_step = time.perf_counter(), first_step

    def show(self, status, *, milestone):
        if milestone:
            done = max(status.step - self.first_step, 1)
            pace = (time.perf_counter() - self.start) / done
            left = pace * (status.n_steps - status.step)
            self.say(f"step {status.step}/{status.n_steps}  {status}  {left:.0f} s left")

    def say(self, text):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 (what it is for)


class BarProgress(SilentProgress):
    """Progress as a live bar with step, loss, other figures and the time left; needs rich."""

    def __init__(self, console: Any):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self.bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self.task = None

    def __exit__(self, *exception):
        self.bar.stop()

    def compiling(self):
        return self.console.status("compiling (once; later runs reuse the compiled code)")

    def training(self, first_step, n_steps):
        self.bar.start()
        self.task = self.bar.add_task("", completed=first_step, total=n_steps, status="")

    def show(self, status, *, milestone):
        self.bar.update(self.task, completed=status.step, status=str(status))

    def say(self, text):
        self.console.print(text, highlight=False, markup=False)


def terminal_progress() -> SilentProgress:
    """Progress bar where standard error is a terminal and rich is installed, lines elsewhere."""
    try:
        from rich.console import Console
    except ImportError:
        return LineProgress()
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress()
