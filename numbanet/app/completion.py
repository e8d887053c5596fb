"""`numbanet completion`: scripts by which shells complete commands, options and names of files."""

import argparse

from numbanet.app.errors import AppError

FILES = (
    "IMAGE",
    "CONFIG",
    "FILE",
    "MESH_OR_SDF",
)  # names of arguments in --help that are files
FOLDERS = ("DIR",)


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for a shell.

    Raises:
        AppError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise AppError('completion needs shtab; pip install "numbanet[completion]"') from error
    for each in subparsers(parser):
        for action in each._actions:
            if action.metavar in FILES:
                action.complete = shtab.FILE
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY
    return shtab.complete(parser, shell)


def subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of all commands."""
    (commands,) = (each for each in parser._actions if isinstance(each.choices, dict))
    return list(commands.choices.values())
