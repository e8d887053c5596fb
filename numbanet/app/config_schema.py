"""A JSON Schema of configs, made from the components, with which editors complete and check them.

It takes all that `load_config` and `create_from_config` take; an option that a component does not
have is no error there, and none here.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

from numbanet import registry
from numbanet.composition_config import COLUMNS, INPUT_NAME
from numbanet.create import SCHEMA
from numbanet.saved_training import SECTIONS

DRAFT = "http://json-schema.org/draft-07/schema#"
DEFAULTS = {"encoding": "OneBlob", "network": "MLP", "loss": "RelativeL2", "optimizer": "Adam"}
TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}
USE = (
    'Editors use it where a config says "$schema": "numbanet.schema.json", the name of this file '
    "from there; in VS Code, json.schemas of the settings names it for files with comments too."
)
# Options of a nested component beside its own.
NESTED = {
    "encoding": {
        "n_dims_to_encode": {"type": ["integer", "null"], "minimum": 0},
        "dims_to_encode_begin": {"type": ["integer", "null"], "minimum": 0},
    },
    "optimizer": {"n_params_to_optimize": {"type": "integer", "minimum": 1}},
}


def config_schema() -> dict[str, Any]:
    """JSON Schema of configs."""
    return {
        SCHEMA: DRAFT,
        "title": "Config of numbanet",
        "description": USE,
        "type": "object",
        "properties": {
            SCHEMA: {"type": "string"},
            "parent": {"type": "string", "description": "a file whose options hold otherwise"},
            "deterministic": {
                "type": "boolean",
                "default": False,
                "description": "the same bits in every run, on a GPU too",
            },
            "perturbation_sigma": {
                "type": "number",
                "minimum": 0,
                "default": 0,
                "description": "deviation of noise on the outputs before the loss, in training",
            },
            **{section: {"$ref": f"#/definitions/{section}"} for section in SECTIONS},
            "network": or_null("network"),
            "parts": {
                "type": "object",
                "description": "by name, in the order of evaluation, instead of encoding, network",
                "additionalProperties": part_schema(),
            },
            "outputs": columns_schema(),
        },
        "definitions": {section: of_kind(section) for section in SECTIONS},
    }


def or_null(section: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/definitions/{section}"}, {"type": "null"}]}


def columns_schema() -> dict[str, Any]:
    """Schema of columns of the inputs or of parts: a text, or a list of texts."""
    text = {"type": "string", "pattern": f"^{COLUMNS.pattern}$"}
    return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}


def part_schema() -> dict[str, Any]:
    """Schema of a part of a model."""
    return {
        "type": "object",
        "properties": {
            "inputs": {**columns_schema(), "default": INPUT_NAME},
            "encoding": or_null("encoding"),
            "network": or_null("network"),
            "n_output_dims": {"type": ["integer", "null"], "minimum": 1},
            "shares": {"type": ["string", "null"]},
        },
    }


def of_kind(kind: str) -> dict[str, Any]:
    """Schema of components of a kind: the otype, and the options of that component."""
    names = registry.registered(kind)
    chosen = []
    for name, component in names.items():
        options = {"properties": options_of(kind, getattr(component, "component", component))}
        has_name = {"properties": {"otype": one_of([name])}, "required": ["otype"]}
        chosen.append({"if": has_name, "then": options})
        if name == default_name(kind):
            chosen.append({"if": {"not": {"required": ["otype"]}}, "then": options})
    otype = {**one_of(names), "default": DEFAULTS[kind]}
    return {"type": "object", "properties": {"otype": otype}, "allOf": chosen}


def default_name(kind: str) -> str:
    """First name of the default component, for a section without otype."""
    component = registry.find(kind, DEFAULTS[kind])
    return next(name for name, each in registry.registered(kind).items() if each is component)


def options_of(kind: str, component: type) -> dict[str, Any]:
    """Schemas of the options of a component, by name."""
    notes = field_notes(component)
    schemas = {}
    for name, option in registry.options(component).items():
        schema = of_option(kind, option)
        if name in notes:
            schema["description"] = notes[name]
        default = registry.as_json(registry.default_of(option))
        if default is not None and "$ref" not in schema:
            schema["default"] = default
        schemas[name] = schema
    return {**schemas, **NESTED.get(kind, {})}


def of_option(kind: str, option: dataclasses.Field) -> dict[str, Any]:
    """JSON Schema of the values that an option takes."""
    if "choices" in option.metadata:
        choices = option.metadata["choices"]
        null = [{"type": "null"}] if "None" in choices else []
        return {"anyOf": [*one_of(choices)["anyOf"], *null]}
    if option.name.endswith("activation"):
        names = one_of(registry.registered("activation"), " *")
        return {"anyOf": [*names["anyOf"], {"type": "null"}]}
    plain, _, none = registry.type_name(option).partition(" | ")
    if plain in TYPES:
        return {"type": [TYPES[plain], "null"] if none else TYPES[plain]}
    if "items" in option.metadata:
        kind = ["array", "null"] if option.default is None else "array"
        return {"type": kind, "items": option.metadata["items"]}
    nested = {"$ref": f"#/definitions/{kind}"}
    return {"type": "array", "items": nested} if plain.startswith("tuple") else nested


def one_of(names: Iterable[str], between: str = "") -> dict[str, Any]:
    """Schema of one of several names: as they are written, for completion, or in any case.

    Args:
        between: a pattern for what may be between the letters.
    """
    names = list(names)
    letters = "|".join(any_case(name, between) for name in names)
    pattern = f"^{between}({letters}){between}$"
    return {"anyOf": [{"enum": names}, {"type": "string", "pattern": pattern}]}


def any_case(name: str, between: str) -> str:
    """Pattern of a name in any case; patterns of JSON Schema have no flag for that."""
    letters = (f"[{c.upper()}{c.lower()}]" if c.isalpha() else re.escape(c) for c in name)
    return between.join(letters)


def field_notes(component: type) -> dict[str, str]:
    """Comments behind the fields in the source; empty where the source is missing."""
    try:
        source = inspect.getsource(component)
    except (OSError, TypeError):  # as of a class that was typed in
        return {}
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))
