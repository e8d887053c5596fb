"""Training loops: a generator of steps, and a function that runs it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from numbanet.callbacks import Callback, as_callback, terminal
from numbanet.history import History
from numbanet.interrupt import Interrupt
from numbanet.optimizers.base import MOST_STEPS
from numbanet.run import Run, Step
from numbanet.shown import shown

INTERRUPTED = "Ctrl-C"


def training(
    trainer: Any,
    batches: Any = None,
    *,
    steps: int,
    callbacks: Sequence[Callback | Callable[[Run], object]] = (),
    learning_rate: float | Callable[[int], float] | None = None,
    history: History | None = None,
) -> Iterator[Step]:
    """Train, and yield each step: `for step in numbanet.training(model, batches, steps=1000)`.

    A loop that is left early, by `break` or an exception, ends the callbacks too.

    Args:
        trainer: a Trainer, a model with one, or an object whose step() makes a step by itself and
            returns the loss; that one needs no batches.
        batches: a function that returns the next batch, or an iterable of batches: (inputs,
            targets), (inputs, targets, pdf), or a dict of training_step's arguments. A batch that
            is None, or the iterable's end, ends the training.
        steps: the number of the last step, those of `history` included.
        callbacks: what else is done, in this order: functions of the run after each step, or
            objects of numbanet.callbacks.
        learning_rate: a number, or a function of the number of steps made, such as those of
            numbanet.schedules; by default the optimizer's own.
        history: of the steps before, when a training goes on; it is continued in place.

    Yields:
        The step that was made, after the callbacks.

    Raises:
        TypeError, ValueError: an argument does not fit; others as training_step.
    """
    check_steps(steps)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: {shown(callbacks)} is no list of them")
    if not isinstance(history, History | None):
        raise TypeError(f"history: expected a History, got {shown(history)}")
    history = History() if history is None else history
    history.end = ""
    run = Run(trainer, batches, int(steps), history, learning_rate)
    if learning_rate is not None:
        run.trainer_for("learning_rate")
    return _steps(run, [as_callback(each) for each in callbacks])


def _steps(run: Run, callbacks: list[Callback]) -> Iterator[Step]:
    with ExitStack() as ends:  # each end is called, even where another one fails
        try:
            for each in callbacks:
                ends.callback(each.end, run)
                each.begin(run)
            while run.step < run.n_steps and not run.history.end:
                if not run.advance():
                    run.stop("no more batches")
                    break
                for each in callbacks:
                    each.after_step(run)
                yield Step(run.step, run.loss, run)
        except GeneratorExit:
            if run.step < run.n_steps:
                run.stop("left")
            raise
        except BaseException as error:
            run.stop(type(error).__name__)
            raise


def fit(
    trainer: Any,
    batches: Any = None,
    *,
    steps: int,
    callbacks: Sequence[Callback | Callable[[Run], object]] = (),
    learning_rate: float | Callable[[int], float] | None = None,
    history: History | None = None,
    progress: bool = True,
) -> History:
    """Train up to a step; the arguments are those of `training`.

    The first Ctrl-C ends the training after the step under way, with all callbacks done and
    `history.end` "Ctrl-C"; a second one raises KeyboardInterrupt.

    Args:
        progress: show a bar where standard error is a terminal and rich is installed, and lines
            elsewhere.

    Returns:
        The history: losses, evaluations, time, and whether and why it ended early.

    Raises:
        TypeError, ValueError: an argument does not fit; others as training_step.
    """
    if progress and isinstance(callbacks, Iterable):
        callbacks = [*callbacks, terminal()]
    history = History() if history is None else history
    options = {"callbacks": callbacks, "learning_rate": learning_rate, "history": history}
    with Interrupt() as interrupt:
        for step in training(trainer, batches, steps=steps, **options):
            if interrupt and step.number < steps:
                step.stop(INTERRUPTED)
    return history


def check_steps(steps: Any) -> None:
    is_integer = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool)
    if not (is_integer and 0 <= steps <= MOST_STEPS):
        raise ValueError(f"steps: {shown(steps)} is not allowed; use an integer to {MOST_STEPS}")
