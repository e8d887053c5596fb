"""Errors that the command line shows as one line."""


class AppError(Exception):
    """Failure outside the program: of a file, a disk or a device."""

    exit_code = 1


class UsageError(AppError):
    """The program was asked for something that it cannot do."""

    exit_code = 2
