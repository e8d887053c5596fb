"""Callbacks between the steps of a training: evaluation, early stop, files, progress."""

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from numbanet.history import History, milestone_due
from numbanet.model_arguments import as_number, check_integer
from numbanet.progress import SilentProgress, Status, terminal_progress
from numbanet.run import Run
from numbanet.shown import shown
from numbanet.training_file import save_training


class Callback:
    """Base of callbacks: hooks at the start, after each step and at the end, which do nothing.

    `run` has step, n_steps, trainer, loss, history; run.stop(reason) ends the training.
    """

    def begin(self, run: Run) -> None:
        """Called before the first step."""

    def after_step(self, run: Run) -> None:
        """Called after each step; on a GPU, reading run.loss waits for it."""

    def end(self, run: Run) -> None:
        """Called at the end, whatever led to it."""


class Function(Callback):
    """A function that is called after each step."""

    def __init__(self, function: Callable[[Run], object]):
        self.function = function

    def after_step(self, run: Run) -> None:
        self.function(run)


def as_callback(value: Any) -> Callback:
    """Convert a function to a callback; callbacks are returned as they are.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, Callback):
        return value
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"callbacks: {shown(value)} is neither a Callback nor a function of a run")
    return Function(value)


class Periodic(Callback, ABC):
    """Callback that runs `act` every so many steps and at the end."""

    def __init__(self, every: int):
        self.every, self.last = check_integer("every", every, 1), -1

    @abstractmethod
    def act(self, run: Run) -> None:
        """The periodic action."""

    def after_step(self, run: Run) -> None:
        if run.step % self.every == 0 or run.step == run.n_steps:
            self.last = run.step
            with run.paused():
                self.act(run)


class Evaluation(Periodic):
    """Calls a function every so many steps and after the last; its time does not count.

    Args:
        function: without arguments; returns a number, or a mapping from names to numbers.
        every: steps between the calls.
        name: of a number in history.metrics.
    """

    def __init__(self, function: Callable[[], Any], every: int = 100, name: str = "evaluation"):
        super().__init__(every)
        if not callable(function):
            raise TypeError(f"function: {shown(function)} cannot be called")
        self.function, self.name = function, name

    def act(self, run: Run) -> None:
        found = self.function()
        values = found if isinstance(found, Mapping) else {self.name: found}
        run.note(**{name: as_number(name, value) for name, value in values.items()})


class EarlyStop(Callback):
    """Stops a training whose metric no longer improves; NaN is no improvement.

    Args:
        metric: "loss", or a name that an Evaluation before it gives.
        patience: values that may come without an improvement.
        least_change: the smallest change that counts.
        highest: whether higher values are better, as of a PSNR.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """

    def __init__(
        self,
        metric: str = "loss",
        patience: int = 10,
        least_change: float = 0.0,
        highest: bool = False,
    ):
        if not isinstance(metric, str):
            raise TypeError(f"metric: expected a name, got {shown(metric)}")
        self.metric, self.patience = metric, check_integer("patience", patience, 0)
        self.least_change = as_number("least_change", least_change)
        if not 0 <= self.least_change < math.inf:
            raise ValueError(f"least_change: {shown(least_change)} is not allowed; use one from 0")
        self.sign = -1.0 if highest else 1.0

    def begin(self, run: Run) -> None:
        self.best, self.n_waited = math.inf, 0
        self.seen = self._newest(run.history, 0)

    def _newest(self, history: History, before: int) -> int:
        """Step of the metric's newest value, or `before`."""
        if self.metric == "loss":
            return history.losses[-1][0] if history.losses else before
        step, values = history.metrics[-1] if history.metrics else (before, {})
        return step if self.metric in values else before

    def after_step(self, run: Run) -> None:
        newest = self._newest(run.history, self.seen)
        if newest == self.seen:
            return
        self.seen = newest
        value = self.sign * run.history.metric(self.metric)
        if value < self.best - self.least_change:
            self.best, self.n_waited = value, 0
        else:
            self.n_waited += 1
        if self.n_waited > self.patience:
            run.stop(f"{self.metric} no longer improves: {self.sign * self.best:g} was the best")

    def end(self, run: Run) -> None:
        is_known = self.metric == "loss" or any(
            self.metric in row for _, row in run.history.metrics
        )
        if run.step == run.n_steps and run.loss is not None and not is_known:
            unknown = f"EarlyStop watched {self.metric!r:.60}, of which no value ever came"
            warnings.warn(unknown, RuntimeWarning, stacklevel=2)


class Checkpoint(Periodic):
    """Writes a snapshot every so many steps and at the end, also after an interruption.

    Where no step was made, nothing is written: a file from before is not lost.

    `numbanet.load(path)` gives the model back, and History.from_json(model.metadata["history"]) the
    history with which `fit` goes on.

    Args:
        path: the file, replaced as a whole.
        metadata: further content.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1000,
        metadata: Mapping[str, Any] | None = None,
    ):
        super().__init__(every)
        self.path, self.metadata = os.fspath(path), dict(metadata or {})

    def begin(self, run: Run) -> None:
        self.last = run.step
        run.trainer_for("Checkpoint")

    def act(self, run: Run) -> None:
        metadata = {**self.metadata, "history": run.history.to_json()}
        save_training(run.trainer, self.path, metadata)

    def end(self, run: Run) -> None:
        if run.step != self.last:
            self.act(run)


class TensorBoard(Callback):
    """Writes losses, evaluations and the learning rate in force as events for TensorBoard.

    Needs tensorboardX: pip install "numbanet[tensorboard]".

    Args:
        folder: where the file of events goes.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            missing = 'TensorBoard needs tensorboardX; pip install "numbanet[tensorboard]"'
            raise ImportError(missing) from error
        self.folder, self.make = os.fspath(folder), SummaryWriter
        self.writer: Any = None

    def begin(self, run: Run) -> None:
        is_first = run.trainer_for("TensorBoard").comm.rank == 0
        self.n_losses, self.n_metrics = len(run.history.losses), len(run.history.metrics)
        self.writer = self.make(logdir=self.folder, write_to_disk=is_first)

    def after_step(self, run: Run) -> None:
        history = run.history
        if len(history.losses) > self.n_losses:
            rates = run.trainer.learning_rates_in_force
            for k, rate in enumerate(rates):
                name = "learning_rate" if len(rates) == 1 else f"learning_rate/{k}"
                self.writer.add_scalar(name, rate, run.step)
        self.write(history)

    def write(self, history: History) -> None:
        """Write the records since the last call."""
        for step, loss in history.losses[self.n_losses :]:
            self.writer.add_scalar("loss", loss, step)
        for step, values in history.metrics[self.n_metrics :]:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.n_losses, self.n_metrics = len(history.losses), len(history.metrics)

    def end(self, run: Run) -> None:
        if self.writer is not None:  # it could be made
            self.write(run.history)
            self.writer.close()
            self.writer = None


class Progress(Callback):
    """Shows step, loss, the newest metric and speed; see numbanet.progress.

    Args:
        shown: how; by default a bar on a terminal, and lines elsewhere.
    """

    def __init__(self, shown: SilentProgress | None = None):
        self.shown = terminal_progress() if shown is None else shown

    def begin(self, run: Run) -> None:
        if run.trainer is not None and run.trainer.comm.rank > 0:
            self.shown = SilentProgress()  # rank 0 says it for all
        self.shown.__enter__()
        self.is_training = False

    def after_step(self, run: Run) -> None:
        if not self.is_training:
            self.shown.training(run.step - 1, run.n_steps)
            self.is_training = True
        history = run.history
        milestone = run.step == run.n_steps or milestone_due(run.step)
        rate = history.steps_per_second
        metrics = history.metrics[-1][1] if history.metrics else {}
        more = [f"{name} {value:.4g}" for name, value in metrics.items()]
        more += [f"{rate:.3g} steps/s"] if rate else []
        self.shown.show(
            Status(run.step, run.n_steps, history.loss, tuple(more)), milestone=milestone
        )

    def end(self, run: Run) -> None:
        self.shown.__exit__(None, None, None)
        if run.history.end:
            self.shown.say(f"ended at step {run.step} of {run.n_steps}: {run.history.end}")


def terminal() -> Progress:
    """Progress callback for a person who watches."""
    return Progress()
