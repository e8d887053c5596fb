"""Configs as files: JSON with comments, damaged as text."""

import json

from fuzz.campaign import Format
from fuzz.formats import config_dicts
from fuzz.mutations import choice, damaged
from numbanet.config import load_config
from numbanet.registry import ConfigError
from numbanet.unknown_options import UnknownOptionWarning

COMMENTS = ("", " // note", " # note", " /* two\n lines */", ",")


def generate(rng) -> bytes:
    lines = json.dumps(config_dicts.config(rng), indent=1).splitlines()
    commented = "\n".join(line + choice(rng, COMMENTS[:4]) for line in lines)
    if rng.random() < 0.3:
        commented = commented.replace("{", '{"parent": "base.json", ', 1)
    return damaged(rng, choice(rng, ("\n".join(lines), commented)).encode())


def read(content: bytes, folder) -> None:
    """Read the file; what it says is then a case of config_dicts."""
    (folder / "base.json").write_text('{"loss": {"otype": "L1"}}', encoding="utf-8")
    file = folder / "config.json"
    file.write_bytes(content)
    config_dicts.create(load_config(file), folder)


FORMAT = Format("config_files", generate, read, (ConfigError,), (UnknownOptionWarning,))
