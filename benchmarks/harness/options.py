"""Options of the scripts' command lines."""

import argparse
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def batch_sizes(text):
    """Read sizes such as 2^14,65536."""
    try:
        sizes = [2 ** int(part[2:]) if part[:2] == "2^" else int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes like 2^14,65536")
    return sizes


def chosen_from(names):
    """Read "all", "none" or names, where "torch" stands for all that start with "torch-" too."""

    def chosen(text):
        if text in ("all", "none"):
            return list(names) if text == "all" else []
        parts = text.split(",")
        unknown = [p for p in parts if not any(n == p or n.startswith(p + "-") for n in names)]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of: {', '.join(names)}")
        return [n for n in names if any(n == p or n.startswith(p + "-") for p in parts)]

    return chosen
