"""JSON with comments and trailing commas: text that the standard library refuses is parsed by
commentjson, which is slower.
"""

import functools
import json
import re
import warnings
from typing import Any

from numbanet.registry import ConfigError
from numbanet.shown import shown

MOST_COMMENTED = 2**18  # characters; commentjson's parser takes seconds for them
MOST_DIGITS = 4000  # of an integer that Python converts under any setting

# A string, a line comment or a block comment, each also where its end is missing, so that no text
# is looked at twice.
_STRING = r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"?'
_SKIPPED_OR_BLOCK = re.compile(rf"{_STRING}|(?://|\#)[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)

VALUES = {"ESCAPED_STRING", "SIGNED_NUMBER", "TRUE", "FALSE", "NULL", "LSQB", "LBRACE"}


class Pairs(list):
    """Keys and values of a JSON object as written; a key may occur twice."""

    def repeated(self) -> str | None:
        """Key that occurs twice."""
        known = set()
        return next((key for key, _ in self if key in known or known.add(key)), None)


def parse(text: str, name: str) -> Any:
    """Parse a text; its objects become Pairs.

    Args:
        text: JSON, with `//`, `#` and `/* */` comments and trailing commas.
        name: of the file, for messages.

    Raises:
        ConfigError: it is no such JSON; the message has line and column.
    """
    try:
        return _decoded(text)
    except json.JSONDecodeError as error:
        if len(text) > MOST_COMMENTED:
            raise ConfigError(
                f"{name}:{error.lineno}:{error.colno}: {error.msg}; comments and trailing commas "
                f"may be in up to {MOST_COMMENTED} characters"
            ) from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deep") from error
    commentjson = _commentjson()
    try:
        return _value(commentjson.parser.parse(_without_blocks(text, name)), name)
    except commentjson.lark.exceptions.UnexpectedInput as error:
        raise ConfigError(f"{_place(error, text, name)}: {_reason(error, text)}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deep") from error


def _decoded(text: str) -> Any:
    return json.loads(text, object_pairs_hook=Pairs, parse_int=_integer)


def _integer(digits: str) -> int:
    """Integer, or a replacement out of every range if it is too long for Python to convert."""
    return int(digits) if len(digits) <= MOST_DIGITS else 10 ** (len(digits) - 1)


def _without_blocks(text: str, name: str) -> str:
    """Text with spaces in place of block comments, so that positions are kept."""

    def blank(match):
        found = match.group()
        if not found.startswith("/*"):
            return found
        if len(found) < 4 or not found.endswith("*/"):
            line, column = _line_and_column(text, match.start())
            raise ConfigError(f"{name}:{line}:{column}: a comment without end; add */")
        return re.sub(r"[^\n]", " ", found)

    return _SKIPPED_OR_BLOCK.sub(blank, text)


@functools.cache
def _commentjson() -> Any:
    """Module of commentjson with the parser; its `loads` would lose positions in the text."""
    with warnings.catch_warnings():  # it imports modules of the standard library's that will go
        warnings.simplefilter("ignore", DeprecationWarning)
        from commentjson import commentjson
    return commentjson


def _value(node: Any, name: str) -> Any:
    """Python value of a tree in commentjson's grammar."""
    children = [child for child in node.children if getattr(child, "type", "") != "TRAILING_COMMA"]
    if node.data == "object":
        return Pairs(tuple(_value(part, name) for part in pair.children) for pair in children)
    if node.data == "array":
        return [_value(child, name) for child in children]
    if not children:
        return {"true": True, "false": False, "null": None}[node.data]
    token = children[0]  # a string or a number
    try:
        return _decoded(token)
    except json.JSONDecodeError as error:
        column = token.column + error.colno - 1
        raise ConfigError(f"{name}:{token.line}:{column}: {error.msg}") from error


def _place(error: Any, text: str, name: str) -> str:
    line, column = error.line, error.column
    if getattr(getattr(error, "token", None), "type", "") == "$END":
        line, column = _line_and_column(text, len(text))
    return f"{name}:{line}:{column}"


def _reason(error: Any, text: str) -> str:
    """Message on a syntax error: what was found, and what was expected."""
    token, terminals = (
        getattr(error, "token", None),
        {t.name: t for t in _commentjson().parser.terminals},
    )
    if token is None:
        found = text[error.pos_in_stream]
        if found == '"':
            return "a string without end on its line"
        found = shown(found)
    else:
        found = "end of the text" if token.type == "$END" else shown(str(token))
    expected = set(getattr(error, "expected", None) or error.allowed or ()) & terminals.keys()
    if expected >= VALUES:
        words = {"a value"}
    else:
        words = {
            "a string" if name == "ESCAPED_STRING" else repr(terminals[name].pattern.value)
            for name in expected - VALUES.difference({"ESCAPED_STRING"}) - {"COMMENT", "WS"}
        }
    return f"unexpected {found}" + f"; expected {' or '.join(sorted(words))}" * bool(words)


def _line_and_column(text: str, place: int) -> tuple[int, int]:
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
