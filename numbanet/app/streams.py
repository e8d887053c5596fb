"""Standard output and error that may be lost, by a closed pipe or a full disk: work goes on."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LossyStream:
    """Text stream that swallows text that can no longer be written, and remembers the error."""

    def __init__(self, stream: Any):
        self._stream = io.StringIO() if stream is None else stream
        self.error: OSError | None = BrokenPipeError() if stream is None else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._losing():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a name that is not UTF-8, or letters that ASCII lacks
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._losing():
            self._stream.flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            # Receives buffered text and further output, of libraries too.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def lossy_streams() -> Iterator[LossyStream]:
    """Make both streams lossy; the value is standard output."""
    for number in range(3):  # a data file with the number of a stream would be printed into
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(LossyStream, before)
    try:
        yield sys.stdout
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
