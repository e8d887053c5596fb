"""The page about the kernels says what they are now."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda import errors

SCRIPT = Path(__file__).parents[1] / "kernel_table.py"
STALE = "docs/kernels.md is stale; run python benchmarks/kernel_table.py"


def kernel_table():
    spec = importlib.util.spec_from_file_location("kernel_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = kernel_table()


def written_rows(name, headings):
    """The rows of a table of the page."""
    section = script.PAGE.read_text(encoding="utf-8").split(f"## {name}.json\n")[1].split("## ")[0]
    table = section.split(f"| {' | '.join(headings)} |\n")[1].split("\n\n")[0]
    return [tuple(line.strip("| ").split(" | ")) for line in table.splitlines()[1:]]


@pytest.mark.parametrize("name", script.SAMPLES)
def test_the_page_is_up_to_date(name):
    try:
        versions = script.toolchain()
    except errors.ToolkitMissingError as error:
        pytest.skip(f"needs a compiler and an assembler: {error}")
    rows, written = script.code_rows(name), written_rows(name, script.CODE)
    assert [row[:2] for row in written] == [row[:2] for row in rows], STALE
    if f"Toolchain: {versions}\n" in script.PAGE.read_text(encoding="utf-8"):
        assert written == rows, STALE


@pytest.mark.parametrize("name", script.SAMPLES)
def test_counts_reach_the_floor(name):
    """A count below what the kernel must do says that one of them is wrong."""
    launched = {
        kernel for kernel, launches, *_ in written_rows(name, script.CODE) if launches != "0"
    }
    rows = written_rows(name, script.COUNTS)
    assert launched <= {row[0] for row in rows}
    for kernel, _, *cells, _ in rows:
        numbers = [float(cell.replace(",", "")) for cell in cells]
        instructions, operations, loaded, stored, reduced, least = numbers
        assert instructions >= operations, kernel
        assert loaded + stored + reduced >= 0.99 * least, kernel
