"""docs/config.md says what the registry says."""

import dataclasses
import re
from pathlib import Path

import pytest

from docs import config_page
from numbanet import registry
from numbanet.registry import register

PAGE = Path(__file__).parents[1] / "docs" / "config.md"


def sections(page, kind):
    """Name of each component of a kind -> the text of its section."""
    chapters = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    text = dict(zip(chapters[1::2], chapters[2::2], strict=True))[config_page.TITLES[kind]]
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page == config_page.config_page(), "docs/config.md is stale: run `make docs`"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_name_and_option_is_on_it(kind):
    found = sections(config_page.config_page(), kind)
    for name, registered in registry.registered(kind).items():
        component = getattr(registered, "component", registered)
        text = found[component.otype]
        assert name == component.otype or re.search(rf"^Also: .*\b{name}\b", text, re.MULTILINE)
        for option in registry.options(component):
            assert re.search(rf"^\| {option} \| [a-z\[\], .]+ \|", text, re.MULTILINE)


def test_aliases_say_what_they_mean():
    text = sections(config_page.config_page(), "encoding")["Grid"]
    assert "Also: HashGrid, TiledGrid, DenseGrid. A Grid whose type follows from its name" in text


def test_sizes_are_those_of_the_defaults():
    found = sections(config_page.config_page(), "encoding")
    assert "2 inputs become 32 features." in found["OneBlob"]
    assert "2 inputs become 32 features, with " in found["Grid"]
    assert "3 inputs become 16 features." in found["SphericalHarmonics"]
    assert "128 x 32, 128 x 128" in sections(config_page.config_page(), "network")["CutlassMLP"]


def test_nested_components_are_shown_as_json():
    encoding = sections(config_page.config_page(), "encoding")["Composite"]
    assert "| nested | list of objects | `[]` |" in encoding
    assert "n\\_dims\\_to\\_encode" in encoding
    ema = sections(config_page.config_page(), "optimizer")["EMA"]
    assert '| nested | object | `{"otype": "Adam"}` |' in ema


@dataclasses.dataclass(frozen=True)
class Thing:
    count: int = 3
    rate: float | None = None  # where a | b
    flag: bool = True
    name: str = "x_y"


def test_a_section_shows_options_with_defaults_and_notes(monkeypatch):
    names = {kind: list(known) for kind, known in registry._display_names.items()}
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(registry, "_display_names", names)
    register("loss", "Thing", "Item")(Thing)
    page = config_page.config_page()
    text = sections(page, "loss")["Thing"]
    assert text.startswith(
        "\n\nAlso: Item.\n\ndocs/config.md says what the registry says.\n\n| option"
    )
    assert "| count | int | `3` |  |" in text
    assert r"| rate | float |  | where a \| b |" in text
    assert "| flag | bool | `true` |  |" in text
    assert '| name | str | `"x_y"` |  |' in text
    assert page != PAGE.read_text(encoding="utf-8")


def test_the_program_writes_the_page(tmp_path):
    config_page.main([str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == config_page.config_page()
