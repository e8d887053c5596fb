"""Sharing of equal device functions between kernels, so that each is compiled once per process.

Models make their device functions anew, and most of those do the same as another model's: two grids
of different sizes have one network. What a function does is its fingerprint, as for kernels.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager

from numbanet.fingerprint import NotCacheable, Reader
from numbanet.inline_compiler import InlineDispatcher


class SharedFunctions:
    """Dispatchers of one target by fingerprint; the most recently used ones are kept.

    So compiled functions of a model are not freed with it, but replaced by those of later ones.

    Args:
        target: "cpu" or "cuda".
        make: function (device function, fingerprint) that gives a dispatcher of the target; the
            latter is None where there is none.
        finish: function (dispatcher) that is called after a kernel was compiled with it.
        free: function (dispatcher) that makes Numba drop its compiled code.
        most: dispatchers that stay; a kernel has up to some 200.
    """

    def __init__(self, target: str, make: Callable, finish: Callable, free: Callable, most: int):
        self._target, self._most = target, most
        self._make, self._finish, self._free = make, finish, free
        self._dispatchers = OrderedDict()

    def __len__(self):
        return len(self._dispatchers)

    @contextmanager
    def used_by(self, context: type):
        """Context, while a kernel is compiled, in which Numba uses shared dispatchers.

        Args:
            context: the class of Numba's typing context.
        """
        resolve, reader, used = context.resolve_value_type, Reader(self._target), {}

        def resolve_shared(typing, value):
            if isinstance(value, InlineDispatcher):
                value = used[value] = used.get(value) or self._shared(value, reader)
            return resolve(typing, value)

        context.resolve_value_type = resolve_shared
        try:
            yield
        finally:
            context.resolve_value_type = resolve
            for dispatcher in used.values():
                self._finish(dispatcher)
            while len(self._dispatchers) > self._most:
                _, dispatcher = self._dispatchers.popitem(last=False)
                self._free(dispatcher)

    def _shared(self, function, reader):
        """Shared dispatcher of a device function."""
        fingerprint = None
        try:
            fingerprint = reader.of(function)
            key = function.py_func.__qualname__, fingerprint  # errors tell the name
        except NotCacheable:
            key = function
        if key not in self._dispatchers:
            self._dispatchers[key] = self._make(function, fingerprint)
        self._dispatchers.move_to_end(key)
        return self._dispatchers[key]


def drop_what_was_inferred(dispatcher) -> None:
    """Free the intermediate data of a compiled function, which exceeds its code."""
    for compiled in dispatcher.overloads.values():
        compiled.fndesc.typemap = compiled.fndesc.calltypes = None
        vars(compiled.type_annotation).clear()  # for numba-cuda, the result has to stay itself
