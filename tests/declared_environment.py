"""An environment with the standard library, numbanet and what numbanet declares that it needs.

    python declared_environment.py EXTRAS PROGRAM [ARGUMENTS]

runs a file, or `-m MODULE`, as it would run after `pip install .` or `pip install ".[EXTRAS]"`:
every other package that is installed here is hidden. Needs no network and takes no time.
"""

import runpy
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}


def project() -> dict:
    """The table "project" of pyproject.toml as it is now."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10, where pytest brings it
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """Requirements of numbanet, and of each extra."""
    return project()["dependencies"], project()["optional-dependencies"]


def closure(extras: set[str]) -> set[str]:
    """Names of all distributions that pip installs for numbanet with these extras."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    own, optional = declared()
    open_ends = [(text, "") for text in own]
    open_ends += [(text, "") for extra in extras for text in optional[extra]]
    seen = set()
    while open_ends:
        text, extra = open_ends.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for asked in {"", *requirement.extras}:
            if (name, asked) in seen:
                continue
            seen.add((name, asked))
            if name == "numbanet":
                open_ends += [(text, "") for text in optional.get(asked, own)]
            else:
                needed = metadata.distribution(name).requires or []
                open_ends += [(text, asked) for text in needed]
    return {name for name, _ in seen}


class DeclaredFinder:
    """Finds installed modules of some distributions, and of no others."""

    def __init__(self, names: set[str]):
        distributions = [metadata.distribution(name) for name in names - {"numbanet"}]
        self.files = {
            Path(file.locate()).resolve()
            for distribution in distributions
            for file in distribution.files or ()
        }
        self.folders = {parent for file in self.files for parent in file.parents}

    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        if spec.origin is None:  # a package of many distributions: a folder without __init__.py
            places = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
            allowed = any(place in self.folders for place in places)
        else:
            places = [Path(spec.origin).resolve()]
            allowed = places[0] in self.files
        installed = any(folder in place.parents for place in places for folder in INSTALLED)
        if installed and not allowed:
            if sys._getframe(2).f_code is find_spec.__code__:
                return None  # who only asks whether it is there, and imports nothing
            raise ModuleNotFoundError(f"{name} is not among what numbanet declares", name=name)
        return spec


def main(extras: str, *program: str) -> None:
    names = closure(set(filter(None, extras.split(","))))
    finder = DeclaredFinder(names)
    for module in set(sys.modules) & {"packaging", "tomli"}:  # of this file, not of the program
        del sys.modules[module]
    sys.meta_path.insert(0, finder)
    sys.path[0] = str(ROOT)
    if program[0] == "-m":
        sys.argv = list(program[1:])
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(program)
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
