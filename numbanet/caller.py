"""Warnings that point at the line which called numbanet, however deep within they arise."""

import sys
import warnings

SKIPPED = ("numbanet", "torch")  # PyTorch stands between a module's caller and its `forward`


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that belongs to neither numbanet nor PyTorch."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame) in SKIPPED:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]
