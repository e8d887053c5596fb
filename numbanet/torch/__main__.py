"""Run a program that imports tinycudann, and cannot be edited, with numbanet in its place.

python -m numbanet.torch PROGRAM [ARGUMENTS]
"""

import runpy
import sys
from pathlib import Path

from numbanet.torch import install_as_tinycudann


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m numbanet.torch PROGRAM [ARGUMENTS]")
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as `python PROGRAM` has it
    install_as_tinycudann()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
