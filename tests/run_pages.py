"""Runs the code of pages of the documentation, as a reader would who types it in.

    python run_pages.py RESULTS PAGE ...

The Python blocks of a page are one program; the commands of its `sh` blocks run between them, in
the same empty folder. The results, a JSON object, say for each page what went wrong, or null.
Notebooks are pages too. Where there is no GPU, "cuda" is "cpu" in the programs. Imports only what
is declared: it runs in tests/declared_environment.py.
"""

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import traceback
from pathlib import Path

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CUDA = re.compile(r'"cuda(:\d)?"')
CONFIG = {  # of the examples, and in config.json of a reader's folder
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2},
}
INSTALLED = {"pip"}  # programs whose effect the environment is


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Kind, text and first line of each block; a notebook's cells are blocks of Python."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        return [("python", each + "\n", 1) for each in code]
    return [
        (found[1], found[2], text.count("\n", 0, found.start(2)) + 1)
        for found in BLOCK.finditer(text)
    ]


def extras(page: Path) -> set[str]:
    """What a page tells its reader to install, beside what every page needs."""
    named = set()
    for kind, text, _ in blocks(page):
        if kind == "sh":
            for found in re.findall(r"^pip install .*\[([\w,]+)\]", text, re.MULTILINE):
                named |= set(found.split(","))
    return named


def has_gpu() -> bool:
    from numbanet.targets import has_driver

    return has_driver()


def run_commands(text: str) -> None:
    """Run the lines of a block of commands; those of numbanet in this process."""
    from numbanet.app.command_line import main

    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] in INSTALLED:
            continue
        if words[0] != "numbanet":
            raise ValueError(f"{line}: only numbanet and pip are run")
        words, _, to = line.partition(" > ")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(shlex.split(words)[1:])
        if status != 0:
            raise ValueError(f"{line}: exit status {status}")
        if to:
            Path(to.strip()).write_text(printed.getvalue(), encoding="utf-8")


def run(page: Path) -> None:
    """Run a page in an empty folder; raises what its code raises."""
    scope = {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        Path("config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        try:
            for kind, text, line in blocks(page):
                if kind == "sh":
                    run_commands(text)
                    continue
                program = text if has_gpu() else CUDA.sub('"cpu"', text)
                exec(compile("\n" * (line - 1) + program, str(page), "exec"), scope)
        finally:
            os.chdir(before)


def main(results: str, *pages: str) -> None:
    found = {}
    for page in pages:
        try:
            run(Path(page))
            found[page] = None
        except Exception:  # whatever a page raises is its result
            found[page] = traceback.format_exc()
    Path(results).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
