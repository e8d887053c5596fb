"""Errors that the command line shows as one line."""


class AppError(Exception):
    """Failure outside the program: of a file, a disk or a device."""

    exit_code = 1


class UsageError(AppError):
    """The request cannot be fulfilled: an argument or a file does not fit."""

    exit_code = 2
