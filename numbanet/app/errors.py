"""Errors that the command line shows as one line."""


class AppError(Exception):
    """Something outside the program went wrong: a file, a disk, a device."""

    exit_code = 1


class UsageError(AppError):
    """The program was asked for something that it cannot do."""

    exit_code = 2
