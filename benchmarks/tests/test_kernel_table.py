"""The page about the kernels says what they are now."""

from functools import cache

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from benchmarks.harness.samples import NAMES
from benchmarks.scripts import kernel_table
from numbanet.cuda import errors

STALE = "docs/kernels.md is stale; run python -m benchmarks.scripts.kernel_table"
PAGE = kernel_table.PAGE.read_text(encoding="utf-8")
counted = cache(kernel_table.count_rows)


def written_rows(name, headings):
    """The rows of a table of the page."""
    section = PAGE.split(f"## {name}.json\n")[1].split("## ")[0]
    table = section.split(f"| {' | '.join(headings)} |\n")[1].split("\n\n")[0]
    return [tuple(line.strip("| ").split(" | ")) for line in table.splitlines()[1:]]


def is_made_with(versions):
    return f"Toolchain: {versions}\n" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_up_to_date(name):
    try:
        versions = kernel_table.toolchain()
    except errors.ToolkitMissingError as error:
        pytest.skip(f"needs a compiler and an assembler: {error}")
    codes = kernel_table.code_rows(name), written_rows(name, kernel_table.CODE)
    counts = counted(name), written_rows(name, kernel_table.COUNTS)
    for rows, written in (codes, counts):
        assert [row[:2] for row in written] == [row[:2] for row in rows], STALE
        if is_made_with(versions):
            assert written == rows, STALE


def test_the_page_begins_as_it_would_now():
    assert PAGE.startswith(kernel_table.INTRODUCTION.format(n=kernel_table.N_SAMPLES)), STALE


@pytest.mark.parametrize("name", NAMES)
def test_counts_reach_the_floor(name):
    """A count below what the kernel must do says that one of them is wrong."""
    for kernel, _, *cells, _ in counted(name):
        numbers = [float(cell.replace(",", "")) for cell in cells]
        instructions, operations, loaded, stored, reduced, least = numbers
        assert instructions >= operations, kernel
        assert loaded + stored + reduced >= 0.99 * least, kernel
