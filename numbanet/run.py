"""State of a training: its steps, losses and clock."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numbanet.history import History, loss_due
from numbanet.model_arguments import as_number
from numbanet.shown import shown
from numbanet.trainable_model import TrainableModel
from numbanet.trainer import Trainer

NO_BATCH = object()  # result of a step when the batches are used up


class Run:
    """Training in progress, as callbacks see it.

    Args:
        learner: a Trainer, a TrainableModel, or anything with step() that returns the loss.
        batches: source of each step's arguments; None for a learner with a step of its own.
        n_steps: the last step.
        history: of the training, which it continues.
        learning_rate: a number, a schedule, or None for the trainer's own.
    """

    def __init__(
        self,
        learner: Any,
        batches: Any,
        n_steps: int,
        history: History,
        learning_rate: float | Callable[[int], float] | None = None,
    ):
        self.learner, self.n_steps, self.history = learner, n_steps, history
        self.trainer = trainer_of(learner)
        self.loss: Any = None  # of the last step, a number; on a GPU it is waited for when read
        self.rate_factor = 1.0  # on the schedule's learning rate; a viewer's slider changes it
        self._step = step_function(learner, self.trainer, batches)
        self._schedule = learning_rate
        self._lap: tuple[float, int] | None = None  # when the clock started, and at which step

    @property
    def step(self) -> int:
        """Number of steps made so far."""
        return self.history.step

    def stop(self, reason: str) -> None:
        """End the training after this step; the history's `end` has the reason."""
        self.history.end = self.history.end or reason or "stopped"

    def trainer_for(self, what: str) -> Any:
        """Trainer of the learner, which `what` needs.

        Raises:
            TypeError: the learner has none.
        """
        if self.trainer is None:
            raise TypeError(f"{what}: {shown(self.learner)} has no trainer")
        return self.trainer

    def advance(self) -> bool:
        """Make a step, queued on a GPU; returns False if there was no batch."""
        history = self.history
        self._set_rate()
        loss = self._step()
        if loss is NO_BATCH:
            return False
        self.loss = loss
        history.step += 1
        if loss_due(history.step) or self._lap is None:
            self.read_loss()
        return True

    def _set_rate(self) -> None:
        schedule = self._schedule
        if schedule is None:
            return
        rate = as_number("learning_rate", schedule(self.step) if callable(schedule) else schedule)
        rate *= self.rate_factor
        if rate != self.trainer.learning_rate:
            self.trainer.learning_rate = rate

    def scale_rate(self, factor: float) -> None:
        """Multiply the learning rate, be it a schedule's or the trainer's own, from now on."""
        change, self.rate_factor = factor / self.rate_factor, factor
        if self._schedule is None:
            self.trainer.learning_rate *= change

    def read_loss(self) -> float:
        """Read the loss of the last step, waiting for a GPU, and record it with the time."""
        history = self.history
        if self.loss is None:
            return history.loss
        if not history.losses or history.losses[-1][0] != history.step:
            history.losses.append((history.step, float(self.loss)))
            self._note_time()
        return history.loss

    def _note_time(self) -> None:
        if self._lap is not None:
            seconds, step = self._lap
            self.history.training_seconds += time.perf_counter() - seconds
            self.history.timed_steps += self.step - step
        self._lap = time.perf_counter(), self.step

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context for work other than training, such as an evaluation: its time does not count."""
        self.read_loss()  # all steps are made then
        yield
        if self._lap is not None:
            self._lap = time.perf_counter(), self.step

    def note(self, **metrics: float) -> None:
        """Record values of an evaluation at this step."""
        rows = self.history.metrics
        if rows and rows[-1][0] == self.step:
            rows[-1][1].update(metrics)
        else:
            rows.append((self.step, metrics))


@dataclass(frozen=True)
class Step:
    """Completed step."""

    number: int
    loss: Any  # a number; on a GPU it is waited for when read
    run: Run

    @property
    def n_steps(self) -> int:
        """Number of the last step of this training."""
        return self.run.n_steps

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step, decay included; a GPU is waited for."""
        return self.run.trainer_for("learning_rate").learning_rates_in_force[0]

    def stop(self, reason: str = "stopped") -> None:
        """End the training after this step."""
        self.run.stop(reason)


def trainer_of(learner: Any) -> Any:
    """Trainer that a learner has, or is."""
    if isinstance(learner, Trainer):
        return learner
    if isinstance(learner, TrainableModel):
        return learner.trainer
    model = getattr(learner, "model", None)
    return getattr(learner, "trainer", None) or getattr(model, "trainer", None)


def step_function(learner: Any, trainer: Any, batches: Any) -> Callable[[], Any]:
    """Function that makes a step and returns its loss, or NO_BATCH.

    Raises:
        TypeError: there are no batches, or nothing to train.
    """
    if batches is None:
        if not callable(getattr(learner, "step", None)):
            raise TypeError(
                "batches: None is only for a learner with a method step(); give a function that "
                "returns (inputs, targets), or an iterable of such pairs"
            )
        return learner.step
    if trainer is None:
        raise TypeError(f"trainer: expected a Trainer or a model, got {shown(learner)}")
    next_batch = source_of(batches)

    def step():
        batch = next_batch()
        if batch is None:
            return NO_BATCH
        if isinstance(batch, Mapping):
            return trainer.training_step(**batch)
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(
                f"batches: got {shown(batch)}; use (inputs, targets), (inputs, targets, pdf) or a "
                "dict of training_step's arguments"
            )
        return trainer.training_step(*batch)

    return step


def source_of(batches: Any) -> Callable[[], Any]:
    """Function that returns the next batch, None after the last one."""
    if callable(batches):
        return until_it_stops(batches)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: {shown(batches)} is neither a function nor an iterable")
    iterator = iter(batches)
    return lambda: next(iterator, None)


def until_it_stops(function: Callable[[], Any]) -> Callable[[], Any]:
    """Function that returns None where the given one raises StopIteration, as next(iterator)."""

    def next_batch():
        try:
            return function()
        except StopIteration:
            return None

    return next_batch
