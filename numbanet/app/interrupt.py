"""Ctrl-C while a command works: it finishes what it is doing, or removes half-made files."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Interrupt:
    """While active, the first SIGINT only makes the object true; the next raises as usual."""

    def __init__(self, notice: Callable[[], None] = lambda: None):
        self.happened = False
        self.notice = notice

    def __bool__(self) -> bool:
        return self.happened

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self.first)
        return self

    def __exit__(self, *exception) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.previous)

    def first(self, *_) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(RuntimeError):  # the signal came in the middle of printing
            self.notice()


@contextmanager
def cleaning_up() -> Iterator[None]:
    """While active, SIGINT raises KeyboardInterrupt, so that half-made files are removed."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread() and callable(previous):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)
