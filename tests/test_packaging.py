"""What several files say about the package is the same in all, and links lead to what is there."""

import re

import pytest
from declared_environment import ROOT, project

LINK = re.compile(r"\]\(([^)\s]+)\)")
REPOSITORY = project()["urls"]["Repository"]
PAGES = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    version = project()["version"]
    assert re.search(rf"^version: {re.escape(version)}$", text_of("CITATION.cff"), re.MULTILINE)
    assert f"\n## {version}\n" in text_of("CHANGELOG.md")


def test_links_of_the_readme_are_whole_and_lead_to_what_is_there():
    """The index of packages shows the README without the files beside it."""
    links = LINK.findall(text_of("README.md"))
    own = [link for link in links if link.startswith(REPOSITORY)]
    assert len(own) > 5
    for link in links:
        assert link.startswith("https://"), link
    for link in own:
        _, _, path = link.partition("#")[0].removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert (ROOT / path).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_other_pages_lead_to_what_is_there(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_addresses_name_one_repository():
    addresses = [*project()["urls"].values(), text_of(".github/ISSUE_TEMPLATE/config.yml")]
    assert all(REPOSITORY in address for address in addresses)
    assert f"repository-code: {REPOSITORY}\n" in text_of("CITATION.cff")


def test_the_python_versions_are_the_same_everywhere():
    listed = re.findall(r"Python :: 3\.(\d+)$", "\n".join(project()["classifiers"]), re.MULTILINE)
    first, last = min(map(int, listed)), max(map(int, listed))
    assert project()["requires-python"] == f">=3.{first}"
    assert f"Python 3.{first} to 3.{last}" in text_of("README.md")
    assert f"(3, {first}) <= sys.version_info[:2] <= (3, {last})" in text_of("Makefile")
