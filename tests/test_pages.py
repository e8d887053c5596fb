"""The code of all pages and notebooks runs, in the environment that the page tells one to make."""

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache

import pytest
from declared_environment import ROOT, declared
from run_pages import BLOCK, blocks, extras

import numbanet

ELSEWHERE = {  # pages whose code other tests run, more closely
    "device_functions.md": "tests/cuda/test_device_functions_page.py",
    "export.md": "tests/exports/test_page.py",
    "extending.md": "tests/test_extending.py",
}
NEEDS_TORCH = {"from_tinycudann.ipynb"}  # of notebooks, which have no commands
PAGES = sorted(
    page
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    if page.name not in ELSEWHERE and blocks(page)
)
FENCE = re.compile(r"^```(\w*)$", re.MULTILINE)


def needed(page):
    """The extras that a page asks for, those of PyTorch's notebooks included."""
    return frozenset(extras(page) | ({"torch"} if page.name in NEEDS_TORCH else set()))


@cache
def results(extras, folder):
    """What came of the pages that need just these extras: they run in one process."""
    pages = [str(page) for page in PAGES if needed(page) == extras]
    program = [ROOT / "tests/declared_environment.py", ",".join(sorted(extras))]
    program += [ROOT / "tests/run_pages.py", folder / "results.json", *pages]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", *program], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text())


def check(page, folder):
    found = results(needed(page), folder)
    assert found[str(page)] is None, found[str(page)]


def name_of(page):
    return str(page.relative_to(ROOT / "docs"))


@pytest.mark.parametrize("page", [p for p in PAGES if "torch" not in needed(p)], ids=name_of)
def test_its_code_runs(page, tmp_path_factory):
    check(page, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("page", [p for p in PAGES if "torch" in needed(p)], ids=name_of)
def test_its_code_runs_with_torch(page, tmp_path_factory):
    pytest.importorskip("torch", reason="needs PyTorch: make test-torch")
    check(page, tmp_path_factory.getbasetemp())


def test_pages_ask_for_extras_that_there_are():
    asked = {extra for page in PAGES for extra in needed(page)}
    assert {"completion", "snapshots", "torch"} <= asked <= declared()[1].keys()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_all_blocks_are_of_a_known_kind(page):
    """Python and commands run; "text" and no name are neither."""
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    assert set(fences) <= {"", "python", "sh", "text"}
    for _, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert text.strip()


def test_other_tests_run_the_rest():
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")


def names_in(page, package):
    text = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
    return set(re.findall(rf"^::: {package}\.(\w+)$", text, re.MULTILINE))


def test_the_reference_has_every_public_name():
    assert names_in("numbanet.md", "numbanet") == set(numbanet.__all__) - {"__version__"}


@pytest.mark.parametrize("package", ["torch", "distributed"])
def test_the_reference_of_a_package_has_every_public_name(package):
    """Read, not imported, for want of what it needs."""
    source = (ROOT / "numbanet" / package / "__init__.py").read_text(encoding="utf-8")
    imported = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.alias))
    named = {node.asname for node in imported if node.asname and not node.asname.startswith("_")}
    assert names_in(f"{package}.md", f"numbanet.{package}") == named


def test_texts_are_merged():
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    conflict = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert [page for page in texts if conflict.search(page.read_text(encoding="utf-8"))] == []


def test_notebooks_hold_no_outputs():
    for page in (ROOT / "docs/tutorials").glob("*.ipynb"):
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), page.name
