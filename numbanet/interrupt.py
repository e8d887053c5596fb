"""Ctrl-C while a command works: it finishes what it is doing, or removes half-made files."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Interrupt:
    """Context in which the first SIGINT only makes the object true; the next raises as usual.

    A process that ignores SIGINT, such as one behind `nohup` in a script, goes on ignoring it.
    """

    def __init__(self, notice: Callable[[], None] = lambda: None):
        self.happened = False
        self.notice = notice

    def __bool__(self) -> bool:
        return self.happened

    def __enter__(self) -> "Interrupt":
        self.previous = set_handler(self.first)
        return self

    def __exit__(self, *exception) -> None:
        restore_handler(self.previous)

    def first(self, *_) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(RuntimeError):  # the signal came in the middle of printing
            self.notice()


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Context in which SIGINT raises KeyboardInterrupt, so that half-made files are removed."""
    previous = set_handler(signal.default_int_handler)
    try:
        yield
    finally:
        restore_handler(previous)


def set_handler(handler: Callable) -> Callable | None:
    """Set the handler of SIGINT; returns the old one, or None where nothing changed: SIGINT is
    ignored, or this is not the main thread.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        return None
    signal.signal(signal.SIGINT, handler)
    return previous


def restore_handler(previous: Callable | None) -> None:
    if previous is not None:
        signal.signal(signal.SIGINT, previous)
