"""Config files: comments, parents, and messages that say where the mistake is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.config import load_config
from numbanet.registry import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text, name="config.json"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_plain_json(write):
    config = {"loss": {"otype": "L2"}, "numbers": [1, 2.5, -3e-4, True, False, None]}
    file = write(json.dumps(config))
    assert load_config(file) == load_config(str(file)) == config


def test_comments_and_trailing_commas(write):
    file = write("""// a comment, with "quotes" and {braces,}
    {
        "loss": {"otype": "L2",}, // to the end of the line
        # the other kind
        /* across
           lines, */ "list": [1, /* inside */ 2, 3, // and a last one
        ],
        "url": "https://example.org/*no*/ #1, ]",
        "quote": "\\"// kept\\" \\\\", /**/
    }
    """)
    assert load_config(file) == {
        "loss": {"otype": "L2"},
        "list": [1, 2, 3],
        "url": "https://example.org/*no*/ #1, ]",
        "quote": '"// kept" \\',
    }


TEXTS = st.text(st.sampled_from('ab/*#,"\\ \t{}[]:é\n'), max_size=12)


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=3), max_size=4))
def test_strings_are_never_taken_for_comments(tmp_path_factory, config):
    file = tmp_path_factory.mktemp("config") / "config.json"
    config.pop("parent", None)
    file.write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    assert load_config(file) == config


def test_a_byte_order_mark_is_fine(write):
    assert load_config(write('\ufeff{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{\n "a": 1\n "b": 2\n}', "3:2", "Expecting ',' delimiter"),
        ('{"a": 1, // note\n /* two\n lines */ b: 2}', "3:11", "property name"),
        ('{"a": [1, 2}', "1:12", "Expecting ',' delimiter"),
        ('{"a": .5}', "1:7", "Expecting value"),
        ('{"a": 1} x', "1:10", "Extra data"),
        ('{"a": "one\nline"}', "1:11", "control character"),
        ('{"a": 1 /* open', "1:9", "Expecting ',' delimiter"),
        ("", "1:1", "Expecting value"),
    ],
)
def test_a_syntax_error_names_file_and_line(write, text, place, reason):
    with pytest.raises(ConfigError) as raised:
        load_config(write(text))
    assert f"config.json:{place}: " in str(raised.value)
    assert reason in str(raised.value)


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"Adam"', "null"])
def test_a_config_is_an_object(write, text):
    with pytest.raises(ConfigError, match=r"config\.json: expected a JSON object, got "):
        load_config(write(text))


def test_other_encodings_are_an_error(tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match=r"config\.json: not UTF-8 text .* at byte 7"):
        load_config(file)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(write, number):
    file = write(f'{{"encoding": {{"nested": [{{}}, {{"scale": {number}}}]}}}}')
    with pytest.raises(ConfigError, match=r"^encoding\.nested\[1\]\.scale: .*finite.*config\.json"):
        load_config(file)


# Parents


def test_a_parent_fills_in_what_the_child_leaves_out(write):
    write('{"loss": {"otype": "L1"}, "encoding": {"otype": "Grid", "levels": [1, 2]}}', "base.json")
    child = write('{"parent": "base.json", "encoding": {"levels": [3]}, "network": {}}')
    assert load_config(child) == {
        "loss": {"otype": "L1"},
        "encoding": {"otype": "Grid", "levels": [3]},
        "network": {},
    }


def test_parents_are_relative_to_the_file_that_names_them(write):
    write('{"a": 1, "b": 1, "c": {"d": 1}}', "grandparent.json")
    write('{"parent": "../grandparent.json", "b": 2}', "sub/parent.json")
    child = write('{"parent": "sub/parent.json", "c": 3}')
    assert load_config(child) == {"a": 1, "b": 2, "c": 3}


def test_a_circle_of_parents_is_an_error(write):
    write('{"parent": "two.json"}', "one.json")
    file = write('{"parent": "one.json"}', "two.json")
    with pytest.raises(ConfigError, match=r"^parent: .*circle.*two\.json.*one\.json.*two\.json"):
        load_config(file)


def test_a_parent_is_a_name(write):
    with pytest.raises(ConfigError, match=r"^parent: expected the name of a file, got \['x'\]"):
        load_config(write('{"parent": ["x"]}'))


def test_an_error_in_a_parent_names_the_parent(write):
    write('{"loss": {"scale": NaN}}', "base.json")
    with pytest.raises(ConfigError, match=r"^loss\.scale: nan .*base\.json"):
        load_config(write('{"parent": "base.json"}'))


# Dicts


def test_a_dict_is_copied_in_plain_types():
    config = {
        "encoding": {"n_levels": np.int64(4), "per_level_scale": np.float64(1.5)},
        "flag": np.bool_(True),
        "zero_dimensional": np.array(2.0),
        "pair": (1, np.float32(0.5)),
    }
    copy = load_config(config)
    assert json.loads(json.dumps(copy)) == copy
    assert copy == {
        "encoding": {"n_levels": 4, "per_level_scale": 1.5},
        "flag": True,
        "zero_dimensional": 2.0,
        "pair": [1, 0.5],
    }
    copy["encoding"]["n_levels"] = 5
    assert config["encoding"]["n_levels"] == 4


@pytest.mark.parametrize("number", [np.nan, np.float32(np.inf)])
def test_a_dict_holds_finite_numbers(number):
    with pytest.raises(ConfigError, match=r"^loss\.scale: .*finite"):
        load_config({"loss": {"scale": number}})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", np.zeros(3), object()])
def test_a_dict_holds_what_json_can(value):
    with pytest.raises(ConfigError, match=rf"^loss\.scale: {type(value).__name__} is not allowed"):
        load_config({"loss": {"scale": value}})


def test_a_dict_may_have_a_parent(write, monkeypatch):
    file = write('{"a": {"b": 1}}', "base.json")
    assert load_config({"parent": str(file), "a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    monkeypatch.chdir(file.parent)
    assert load_config({"parent": "base.json"}) == {"a": {"b": 1}}
