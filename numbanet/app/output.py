"""Output of a command: text for a person or JSON for a program, as verbose as asked."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numbanet.app.files import finite

LOG = logging.getLogger("numbanet")


@dataclass(frozen=True)
class Output:
    """Destination and verbosity of a command's results.

    Args:
        verbose: say also what is compiled, and what is found in the cache, on standard error.
        quiet: no text but errors.
        as_json: results are JSON, a line each, and nothing else is on standard output.
    """

    verbose: bool = False
    quiet: bool = False
    as_json: bool = False

    def say(self, text: str) -> None:
        """Print text, unless it is to be quiet or JSON."""
        if not (self.quiet or self.as_json):
            print(text, flush=True)

    def result(self, value: dict[str, Any]) -> None:
        """Print a result as a line of JSON, if asked for; NaN and infinity are null."""
        if self.as_json:
            print(json.dumps(finite(value), allow_nan=False), flush=True)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Set the levels of numbanet's logger and of warnings to the chosen verbosity."""
        before, handlers = LOG.level, list(LOG.handlers)
        if self.verbose:
            LOG.setLevel(logging.DEBUG)
            LOG.addHandler(logging.StreamHandler())
        elif self.quiet:
            LOG.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if self.quiet else "default", UserWarning)
                yield
        finally:
            LOG.setLevel(before)
            LOG.handlers[:] = handlers

    @contextmanager
    def telling(self, handler: logging.Handler) -> Iterator[None]:
        """Send the logger's messages on compilations to a handler instead of standard error.

        Where all is said, standard error has it too.
        """
        before, handlers = LOG.level, list(LOG.handlers)
        if self.verbose:
            LOG.addHandler(handler)
        else:
            LOG.setLevel(logging.INFO)
            LOG.handlers[:] = [handler]
        try:
            yield
        finally:
            LOG.setLevel(before)
            LOG.handlers[:] = handlers
