"""Public function of exports, with deferred imports."""

import os
from typing import Any

FORMATS = {".h": "c", ".wgsl": "wgsl", ".glsl": "glsl", ".frag": "glsl", ".onnx": "onnx",
           ".html": "html"}  # fmt: skip


def export(
    model: Any,
    path: str | os.PathLike[str],
    to: str | None = None,
    *,
    precision: str = "float32",
    name: str | None = None,
    embed: bool = True,
    view: str = "auto",
) -> list[str]:
    """Write a trained model as a program that needs no Python.

    Args:
        model: made by create_from_config, create_network_with_input_encoding or create_encoding.
            One with a trainer is written with its parameters for inference.
        path: the file to write; one that exists is replaced as a whole.
        to: "c" (a C99 header), "wgsl", "glsl" (ES 3.00), "onnx" or "html"; None goes by the ending
            of the path.
        precision: that the parameters are rounded to: "float32", "float16", or "int8" with a scale
            for each 64. All computations are float32.
        name: begins every name in the program; from the path where it is None.
        embed: False to leave the parameters of a C header in a file beside it. WGSL and GLSL always
            have them there.
        view: of an HTML page: "image", "surface", "volume" or "field"; "auto" goes by the
            numbers of inputs and outputs.

    Returns:
        The paths of the files: that of the program, then, where there is one, that of the
        parameters (little-endian: the values, then the scales at a multiple of 4 bytes).

    Raises:
        ExportError: a component cannot be translated; the message says why and where.
        ValueError: an argument is not allowed, or the parameters do not fit the precision.
        ModuleNotFoundError: ONNX needs the package onnx.
        OSError: a file cannot be written.
    """
    from numbanet.exports.writing import write

    return write(model, path, to, precision, name, embed, view)
