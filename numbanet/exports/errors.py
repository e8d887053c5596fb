"""Error for what cannot be exported: where it stands, and what to write instead."""

from numbanet.inline_compiler import owner_of


class ExportError(ValueError):
    """A device function cannot be translated; the message says what and where."""

    def __init__(self, function, complaint: str, line: int | None = None):
        owner = owner_of(function)
        file = function.__code__.co_filename
        where = f"{file}:{line or function.__code__.co_firstlineno}"
        who = f"{owner}: " if owner else ""
        super().__init__(f"{who}{function.__name__!r} ({where}) has no translation: {complaint}")
