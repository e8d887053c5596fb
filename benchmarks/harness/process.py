"""A method in a process of its own: thread pools do not meet, and a crash costs only its row."""

import contextlib
import importlib
import multiprocessing

TIMEOUT = 600  # seconds, compilation included


class MethodError(Exception):
    """The method could not do what it was asked to."""


class MethodMissing(MethodError):
    """The method's framework is not installed."""


def find(where):
    """Import "module:Class"."""
    module, name = where.split(":")
    return getattr(importlib.import_module(module), name)


def serve(connection, make, args):
    try:
        session = find(make)(*args)
        connection.send((None, None))
        while True:
            name, args = connection.recv()
            connection.send((None, getattr(session, name)(*args)))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        kind = MethodMissing if isinstance(error, ImportError) else MethodError
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        connection.send((kind, text))


class Process:
    """An object "module:Class" made elsewhere: `process.measure(...)` is its `measure(...)`.

    Raises:
        MethodMissing: its framework is not there.
        MethodError: it failed, died or took too long.
    """

    def __init__(self, make, *args, timeout=TIMEOUT):
        self.timeout = timeout
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, args), daemon=True)
        self.process.start()
        theirs.close()
        self.receive()

    def __getattr__(self, name):
        def call(*args):
            with contextlib.suppress(OSError):  # it has died: receive() says so
                self.connection.send((name, args))
            return self.receive()

        return call

    def receive(self):
        try:
            if not self.connection.poll(self.timeout):
                self.process.kill()
                raise MethodError(f"no answer within {self.timeout} s")
            kind, result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise MethodError(f"the process died (exit code {self.process.exitcode})") from None
        if kind is not None:
            raise kind(result)
        return result

    def close(self):
        self.connection.close()
        self.process.join(timeout=5)
        self.process.kill()
