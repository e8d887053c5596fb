"""GLSL functions evaluated in headless Chromium for many samples."""

import base64
import json
from pathlib import Path

import numpy as np
from chromium import browser

EVALUATE = (Path(__file__).parent / "evaluate.js").read_text()
HEAD = """#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
"""
MAIN = """
uniform int first;
uniform sampler2D inputs;
out vec4 found;
void main() {
    float x[INPUTS], y[OUTPUTS];
    for (int k = 0; k < INPUTS; k++) {
        x[k] = texelFetch(inputs, ivec2(k, int(gl_FragCoord.x)), 0).r;
    }
    model_evaluate(x, y);
    int last = OUTPUTS - 1;
    found = vec4(y[min(first, last)], y[min(first + 1, last)], y[min(first + 2, last)],
        y[min(first + 3, last)]);
}
"""


def text(array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def texture(name, kind, values, width):
    height = max(1, -(-values.size // width))
    padded = np.zeros(width * height, values.dtype)
    padded[: values.size] = values
    return [name, kind, width, height, text(padded)]


def evaluate(source, packed, n_uniform, x, n_outputs, width):
    """Outputs [n, n_outputs] of a GLSL function model_evaluate."""
    kind = {"float32": "R32F", "float16": "R16F", "int8": "R8I"}[packed.precision]
    textures = [texture("model_values", kind, packed.values, width)]
    if packed.scales is not None:
        textures.append(texture("model_scales", "R32F", packed.scales, width))
    weights = np.zeros(-(-n_uniform // 4) * 4, np.float32)
    weights[:n_uniform] = packed.unpacked()[:n_uniform]
    n, n_inputs = x.shape
    sizes = f"#define INPUTS {n_inputs}\n#define OUTPUTS {n_outputs}\n"
    page = browser().new_page()
    try:
        arguments = [
            HEAD + source + sizes + MAIN, textures, text(weights) if n_uniform else None,
            text(x), n, n_inputs, n_outputs,
        ]  # fmt: skip
        found = page.evaluate(EVALUATE, json.loads(json.dumps(arguments)))
    finally:
        page.close()
    rows = [np.array(row, np.float32).reshape(n, 4) for row in found]
    return np.concatenate(rows, 1)[:, :n_outputs]
