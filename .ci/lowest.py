"""Constraints for pip: the oldest version that pyproject.toml allows of each package.

    python .ci/lowest.py EXTRA ... > constraints.txt

"numba>=0.66" becomes "numba==0.66". A package that is not named may be of any version.
"""

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib


def constraints(extras: list[str]) -> list[str]:
    """A line for each requirement with a lower bound, markers included."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    required = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    pinned = (
        re.sub(r"^([\w.-]+)(\[[^]]*\])?>=([\d.]+)[^;]*", r"\1==\3", line) for line in required
    )
    return [line for line in pinned if "==" in line.partition(";")[0]]


if __name__ == "__main__":
    print("\n".join(constraints(sys.argv[1:])))
