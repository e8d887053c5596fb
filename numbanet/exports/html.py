"""Export of a model as one HTML file that shows an image, surface, volume or radiance field."""

import base64
import html
import json
import zlib
from importlib import resources

from numbanet.exports.glsl import WIDTH, glsl_function, in_uniform_block
from numbanet.exports.packing import Packed
from numbanet.exports.program import Program
from numbanet.shown import shown

VIEWS = ("image", "surface", "volume", "field")
HEAD = """\
#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
"""


def html_page(
    program: Program, packed: Packed, name: str, n_weights: int, view: str, aspect: float = 1.0
) -> str:
    """Text of the page, which loads nothing.

    Args:
        program: of the model.
        packed: the parameters.
        name: of the model.
        n_weights: parameters in front that are a network's.
        view: one of VIEWS, or "auto".
        aspect: width over height of an image.

    Raises:
        ValueError: the view does not exist, or does not fit the model.
    """
    view = chosen_view(view, program.n_inputs, program.n_outputs)
    model = {
        "name": name, "title": name, "view": view, "precision": packed.precision,
        "n_params": int(packed.values.size), "block": packed.block, "width": WIDTH,
        "n_uniform": n_weights if in_uniform_block(n_weights) else 0, "aspect": aspect,
        "data": base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode(),
    }  # fmt: skip
    constants = f"#define INPUTS {program.n_inputs}\n#define OUTPUTS {program.n_outputs}\n"
    function = glsl_function(program, packed, name, name, n_weights)
    views = text_of("views.glsl").replace("NAME_", f"{name}_") + text_of(f"{view}.glsl")
    texts = {
        "__TITLE__": html.escape(name),
        "__FRAGMENT__": HEAD + function + constants + views,
        "__MODEL__": json.dumps(model),
        "__SCRIPT__": text_of("viewer.js"),
    }
    page = text_of("page.html")
    for place, text in texts.items():
        page = page.replace(place, text)
    return page


def text_of(file: str) -> str:
    return (resources.files("numbanet.exports") / "page" / file).read_text(encoding="utf-8")


def chosen_view(view: str, n_inputs: int, n_outputs: int) -> str:
    """View for these numbers of inputs and outputs; raises ValueError."""
    if view == "auto":
        if n_inputs == 2:
            view = "image"
        elif n_inputs == 3:
            view = {1: "surface", 4: "field"}.get(n_outputs, "volume")
        else:
            view = "field"
    needs = {
        "image": (n_inputs == 2, "2 inputs"),
        "surface": (n_inputs == 3 and n_outputs == 1, "3 inputs and 1 output, a distance"),
        "volume": (n_inputs == 3, "3 inputs"),
        "field": (
            n_inputs in (3, 6) and n_outputs == 4,
            "3 inputs, or 6 with a direction, and 4 outputs: red, green, blue, density",
        ),
    }
    if view not in needs:
        raise ValueError(
            f"view: {shown(view)} is not allowed; use auto or one of {', '.join(VIEWS)}"
        )
    fits, need = needs[view]
    if not fits or n_outputs < 1:
        raise ValueError(
            f"view: {view!r} is for {need}, and the model has {n_inputs} inputs and {n_outputs} "
            "outputs"
        )
    return view
