"""Config files: comments, parents, and messages that say where the mistake is."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.config import MOST_BYTES, MOST_PARENTS, load_config
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
        ('{\n "a": 1\n "b": 2\n}', "3:2", "unexpected '\"b\"'; expected ',' or "),
        ('{"a": 1, // note\n /* two\n lines */ b: 2}', "3:11", "unexpected 'b'; expected "),
        ('{"a": [1, 2}', "1:12", "unexpected '}'; expected ',' or ']'"),
        ('{"a": .5}', "1:7", "Expecting value"),
        ('{"a": 01} // octal', "1:8", "Extra data"),
        ('# one\n{"a": [\n NaN]}', "3:2", "unexpected 'N'; expected a value"),
        ('{"a": 1} x', "1:10", "unexpected 'x'"),
        ('{"a": "one\nline"}', "1:7", "a string without end"),
        ('{"a": "a\tb",}', "1:9", "control character"),
        ('{"a": "\\x",}', "1:8", "escape"),
        ('{"a": 1 /* open', "1:9", "a comment without end"),
        ('{"a": 1 /*/ }', "1:9", "a comment without end"),
        ('{"a": 1,\n', "2:1", "unexpected end of the text"),
        ("", "1:1", "unexpected end of the text; expected a value"),
    ],
)
def test_a_syntax_error_names_file_and_line(write, text, place, reason):
    with pytest.raises(ConfigError) as raised:
        load_config(write(text))
    assert f"config.json:{place}: " in str(raised.value)
    assert reason in str(raised.value)


# Texts that were made to be slow or to break something; the parser takes them in one pass.
HOSTILE = {
    "escaped quotes": '\\"' * 20_000,
    "escaped quotes in a string": '{"a": "' + '\\"' * 20_000,
    "comments that begin": "/*" * 60_000,
    "quotes": '"' * 100_000,
    "backslashes": '"' + "\\" * 100_001,
    "lists": "[" * 60_000 + "]" * 60_000,
    "lists and a comment": "[" * 60_000 + "]" * 60_000 + "//",
    "lists, 400": '{"a": ' + "[" * 400 + "]" * 400 + ",}",
    "objects": '{"a":' * 60_000 + "1" + "}" * 60_000,
    "digits": '{"a": ' + "7" * 5_000 + "}",
    "digits and a comment": '{"a": -' + "7" * 5_000 + "} #",
    "digits of a float": '{"a": 1' + "0" * 400 + "}",
    "a long key": '{"' + "k" * 500_000 + '": NaN}',
    "a null character as the parent": '{"parent": "\\u0000"}',
    "an unpaired surrogate as the parent": '{"parent": "\\ud800"}',
    "a long parent": '{"parent": "' + "p" * 500_000 + '"}',
    "a device as the parent": '{"parent": "/dev/zero"}',
    "a number as the parent": '{"parent": ' + "7" * 5_000 + "}",
    "a control character as a key": '{"\\u001b[31m": NaN}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_are_config_errors(write, text):
    with pytest.raises(ConfigError) as raised:
        load_config(write(text))
    assert len(str(raised.value)) < 500
    str(raised.value).encode()


def test_a_long_text_with_comments(write):
    items = ["1.5"] * 15_000
    assert load_config(write('{"a": [' + ",// note\n".join(items) + "]}")) == {"a": [1.5] * 15_000}
    text = '{"a": "' + '\\"' * 20_000 + '"} // note'
    assert load_config(write(text)) == {"a": '"' * 20_000}


def test_comments_are_read_in_texts_up_to_a_size(write):
    items = ",\n".join(["1"] * 100_000)
    assert len(load_config(write(f'{{"a": [{items}]}}'))["a"]) == 100_000
    with pytest.raises(ConfigError, match=r"config\.json:100001:1: .*; comments .* 262144 char"):
        load_config(write(f'{{"a": [{items},\n// note\n]}}' + " " * 70_000))


def test_plain_json_needs_no_second_parser(write):
    code = "import sys, numbanet; print(numbanet.load_config(sys.argv[1]), 'lark' in sys.modules)"
    for text, needed in (('{"a": 1}', False), ('{"a": 1,}', True)):
        command = [sys.executable, "-W", "error", "-c", code, str(write(text))]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (run.stdout, run.stderr) == (f"{{'a': 1}} {needed}\n", "")


@pytest.mark.parametrize("comment", ["", " // note"])
def test_a_key_is_given_once(write, comment):
    file = write('{"a": {"b": [{"c": 1}, {"c": 1, "d": 2, "c": 1}]}}' + comment)
    with pytest.raises(ConfigError, match=r"^a\.b\[1\]\.c: given twice.*config\.json"):
        load_config(file)


def test_large_files_are_refused(write):
    size = MOST_BYTES - len('{"a": ""}')
    assert len(load_config(write('{"a": "' + "x" * size + '"}'))["a"]) == size
    with pytest.raises(OSError, match=r"larger than .* bytes.*config\.json"):
        load_config(write('{"a": "' + "x" * (size + 1) + '"}'))


@pytest.mark.parametrize("special", ["/dev/zero", "fifo"])
def test_only_regular_files_are_read(tmp_path, special):
    if special == "fifo":
        special = tmp_path / "fifo"
        os.mkfifo(special)
    with pytest.raises(OSError, match="not a regular file"):
        load_config(special)


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


def test_many_parents_are_an_error(write):
    for k in range(MOST_PARENTS + 1):
        first = write(f'{{"parent": "{k - 1}.json"}}' if k else '{"a": 1}', f"{k}.json")
    assert load_config(first) == {"a": 1}
    first = write(f'{{"parent": "{MOST_PARENTS}.json"}}')
    with pytest.raises(ConfigError, match=r"^parent: .*more than 32"):
        load_config(first)


def test_a_parent_that_cannot_be_read_is_named(write):
    with pytest.raises(ConfigError, match=r"^parent: 'none\.json' cannot be read \(No such file"):
        load_config(write('{"parent": "none.json"}'))


def test_a_parent_is_a_name(write):
    with pytest.raises(ConfigError, match=r"^parent: expected the name of a file, got \['x'\]"):
        load_config(write('{"parent": ["x"]}'))


def test_an_error_in_a_parent_names_the_parent(write):
    write('{"loss": {"scale": NaN}}', "base.json")
    with pytest.raises(ConfigError, match=r"^loss\.scale: nan .*base\.json"):
        load_config(write('{"parent": "base.json"}'))


# Dicts


@pytest.mark.parametrize("config", [5, None, b"config.json", ["config.json"]], ids=repr)
def test_other_things_are_no_config(config):
    with pytest.raises(TypeError, match=r"^config: expected the name of a file or a dict, got"):
        load_config(config)


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


def test_a_dict_within_itself_is_an_error():
    config = {}
    config["nested"] = [config]
    with pytest.raises(ConfigError, match=r"^nested\[0\]\.nested.*: nested deeper than 32"):
        load_config(config)


@pytest.mark.parametrize("number", [10**400, -(10**5000)], ids=["400", "5000"])
def test_a_dict_holds_no_absurd_integer(number):
    with pytest.raises(ConfigError, match=r"^loss\.scale: an integer of \d+ digits is not"):
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


def test_options_are_checked_without_assertions():
    """Under python -O, where a table that is too large would only be noticed in a kernel."""
    code = """
import numbanet
assert False
grid = {"otype": "HashGrid", "n_levels": 32, "log2_hashmap_size": 31, "base_resolution": 2**20}
for n_dims, encoding in ((3, grid), (8, {"otype": "NRC", "n_bins": 0})):
    try:
        numbanet.create_encoding(n_dims, encoding, device="cpu")
    except numbanet.ConfigError as error:
        print(error)
"""
    command = [sys.executable, "-O", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("encoding.n_levels: 32 is not allowed")
    assert second.startswith("encoding.n_bins: 0 is not allowed")
