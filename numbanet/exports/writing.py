"""Choice of the program that a model becomes, and the files that it is written to."""

import keyword
import os
import re
from pathlib import Path

import numpy as np

from numbanet.atomic_file import replace_file
from numbanet.exports.c import c_header
from numbanet.exports.errors import ExportError
from numbanet.exports.export import FORMATS
from numbanet.exports.glsl import glsl_function
from numbanet.exports.packing import Packed, packed
from numbanet.exports.traced import program_of
from numbanet.exports.views import Untranslatable
from numbanet.exports.wgsl import wgsl_module
from numbanet.model import AbstractModel
from numbanet.quantization import quantize
from numbanet.regular_file import check_regular
from numbanet.shown import shown

NAME = re.compile(r"(?=.{1,61}$)[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", re.ASCII)
RESERVED = re.compile(r"(web)?gl_", re.IGNORECASE)  # of GLSL, as two _ beside each other are
KINDS = ("c", "wgsl", "glsl", "onnx", "html")


def write(model, path, to, precision, name, embed, view) -> list[str]:
    """Write the files of an export and return their paths; see `export`."""
    kind, name = kind_of(path, to), name_of(path, name)
    network, params = evaluated(model)
    numbers = packed(params, precision)
    title = " ".join(f"{name}: {network!r}".split()).replace("*/", "* /")[:200]
    files = files_of(kind, network, numbers, name, title, embed, view)
    target = os.fspath(path)
    written = {target: files["program"]}
    if "params" in files:
        written[params_path(target)] = files["params"]
    for place in written:
        if os.path.exists(place):
            check_regular(os.stat(place).st_mode, place)
    for place, data in reversed(written.items()):
        replace_file(place, data)
    return list(written)


def params_path(path: str) -> str:
    """Path of the parameters beside a program; raises ValueError if it is the program's own."""
    beside = os.path.splitext(path)[0] + ".bin"
    if beside == path:
        raise ValueError(f"path: {shown(path)} is where the parameters go; use another ending")
    return beside


def kind_of(path, to) -> str:
    """Language of the export; raises ValueError."""
    if to is None:
        to = FORMATS.get(Path(path).suffix.lower())
        if to is None:
            endings = ", ".join(FORMATS)
            raise ValueError(f"path: {shown(str(path))} ends in none of {endings}; say `to`")
    if to not in KINDS:
        raise ValueError(f"to: {shown(to)} is not allowed; use one of {', '.join(KINDS)}")
    return to


def name_of(path, name) -> str:
    """Identifier that is valid in all languages; raises ValueError for an invalid given one."""
    if name is None:
        name = re.sub(r"[\W_]+", "_", Path(path).stem, flags=re.ASCII)[:60].strip("_").lower()
        name = name or "model"
        is_taken = name[0].isdigit() or keyword.iskeyword(name) or RESERVED.match(name)
        return f"model_{name}" if is_taken else name
    if not isinstance(name, str) or not NAME.fullmatch(name) or RESERVED.match(name):
        raise ValueError(
            f"name: {shown(name)} is not allowed; use letters, digits and single _ between them, "
            "61 at most, and neither gl_ nor webgl_ in front"
        )
    return name


def evaluated(model) -> tuple[AbstractModel, np.ndarray]:
    """The network that evaluates, and its parameters for inference on the host."""
    trainer = getattr(model, "trainer", None)
    network = getattr(model, "network", model) if trainer is not None else model
    if not isinstance(network, AbstractModel):
        raise TypeError(
            f"model: {type(model).__name__} is not allowed; use what create_from_config, "
            "create_network_with_input_encoding or create_encoding made"
        )
    params = network.params if trainer is None else trainer.inference_params
    values = np.asarray(network.target.to_host(params), np.float32)
    return network, quantize(values, network.quantized)


def files_of(kind, model, numbers: Packed, name, title, embed, view) -> dict[str, bytes]:
    """Text of the program, and the parameters where they are not in it."""
    try:
        return translated(kind, model, numbers, name, title, embed, view)
    except Untranslatable as error:  # of a language; errors of device functions name their line
        raise ExportError(model.encoding.forward.py_func, str(error)) from error


def translated(kind, model, numbers, name, title, embed, view) -> dict[str, bytes]:
    n_weights = model.network.n_params if hasattr(model, "network") else 0
    if kind == "onnx":
        from numbanet.exports.onnx_graph import onnx_model

        return {"program": onnx_model(model, numbers, name, title)}
    if kind == "c":
        text = c_header(program_of(model), numbers, name, title, embed)
        return {"program": text.encode()} | ({} if embed else {"params": numbers.tobytes()})
    program = program_of(model, rounds=True)
    if kind == "wgsl":
        text = wgsl_module(program, numbers, name, title)
        return {"program": text.encode(), "params": numbers.tobytes()}
    if kind == "html":
        from numbanet.exports.html import html_page

        return {"program": html_page(program, numbers, name, n_weights, view).encode()}
    text = glsl_function(program, numbers, name, title, n_weights)
    return {"program": text.encode(), "params": numbers.tobytes()}
