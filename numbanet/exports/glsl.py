"""Export of a model as a function of GLSL ES 3.00: parameters in textures and a uniform block."""

import numpy as np

from numbanet.exports.lowering import lowered
from numbanet.exports.printing import Printer, float_text
from numbanet.exports.program import BOOL, F32, I32, U32, Program, Value

TEMPLATE = """\
// {title}
//
// {name}_evaluate(x, y): x holds {n_inputs} inputs, y gets {n_outputs} outputs.
// For a fragment shader of WebGL 2 (#version 300 es) with precision highp float and highp int.
{note}
// Made by numbanet.

#define {upper}_N_INPUTS {n_inputs}
#define {upper}_N_OUTPUTS {n_outputs}
{declarations}
{functions}
void {name}_evaluate(in float x[{inputs}], out float y[{outputs}]) {{
{body}}}
"""


TYPES = {F32: "float", I32: "int", U32: "uint", BOOL: "bool"}


class GlslPrinter(Printer):
    types = TYPES

    def __init__(self, name, n_weights):
        super().__init__(name)
        self.n_weights = n_weights

    def parameter(self, index: Value) -> str:
        if index.high < self.n_weights:
            return f"{self.name}_weight({self.text(index)})"
        return f"{self.name}_param({self.text(index)})"

    def float_literal(self, number):
        return float_text(number) if number >= 0 else f"({float_text(number)})"

    def not_finite(self, value):
        return f"uintBitsToFloat({int(np.float32(value.value).view(np.uint32))}u)"

    def integer_literal(self, type, number):
        if type == U32:
            return f"{number}u"
        if number == -(2**31):
            return "(-2147483647 - 1)"
        return str(number) if number >= 0 else f"({number})"

    def infix(self, value, sign):
        if value.type == BOOL and value.args[0].type == BOOL:
            sign = {"and": "&&", "or": "||", "xor": "^^"}.get(value.op, sign)
        return super().infix(value, sign)

    def function(self, value):
        args = [self.text(arg) for arg in value.args]
        op = value.op
        if op == "select":
            return f"{args[0]} ? {args[1]} : {args[2]}"
        names = {"float_to_bits": "floatBitsToUint", "bits_to_float": "uintBitsToFloat",
                 "round": "roundEven"}  # fmt: skip
        return f"{names.get(op, op)}({', '.join(args)})"


WIDTH = 4096  # of a texture, in numbers
MOST_UNIFORM_BYTES = 16384  # that every device has in a uniform block
SAMPLERS = {"float32": "sampler2D", "float16": "sampler2D", "int8": "isampler2D"}
NUMBERS = {"float32": "R32F", "float16": "R16F", "int8": "R8I"}
FETCH = "texelFetch({name}_{texture}, ivec2(int(i % {width}u), int(i / {width}u)), 0).r"


def in_uniform_block(n_weights: int) -> bool:
    """Whether a network's weights lie in a uniform block, as float32, not in the texture."""
    return 0 < n_weights * 4 <= MOST_UNIFORM_BYTES


def glsl_function(program: Program, packed, name: str, title: str, n_weights: int) -> str:
    """Text of the function, with everything it needs.

    Args:
        program: of the model.
        packed: the parameters.
        name: begins every name.
        title: one line about the model.
        n_weights: parameters in front that are a network's.
    """
    program = lowered(program)
    uniform = in_uniform_block(n_weights)
    printer = GlslPrinter(name, n_weights if uniform else 0)
    body = printer.statements(program)
    return TEMPLATE.format(
        title=title, name=name, upper=name.upper(), n_inputs=program.n_inputs, body=body,
        n_outputs=program.n_outputs, inputs=max(program.n_inputs, 1),
        outputs=max(program.n_outputs, 1), note=note(packed, name, uniform),
        declarations=declarations(packed, name, n_weights if uniform else 0),
        functions=functions(packed, name, uniform),
    )  # fmt: skip


def note(packed, name, uniform) -> str:
    kind = NUMBERS[packed.precision]
    lines = [f"{name}_values: a {kind} texture, {WIDTH} numbers a row, of all parameters in order."]
    if packed.scales is not None:
        lines.append(
            f"{name}_scales: an R32F texture, {WIDTH} a row, one for {packed.block} values."
        )
    if uniform:
        lines.append(f"{name}_weights: a uniform block of the network's weights as float32.")
    return "\n".join(f"// {line}" for line in lines)


def declarations(packed, name, n_uniform) -> str:
    lines = [f"uniform highp {SAMPLERS[packed.precision]} {name}_values;"]
    if packed.scales is not None:
        lines.append(f"uniform highp sampler2D {name}_scales;")
    if n_uniform:
        n = -(-n_uniform // 4)
        lines.append(f"layout(std140) uniform {name}_weights {{ vec4 {name}_w[{n}]; }};")
    return "\n".join(lines)


def functions(packed, name, uniform) -> str:
    value = FETCH.format(name=name, texture="values", width=WIDTH)
    if packed.scales is not None:
        scale = FETCH.format(name=name, texture="scales", width=WIDTH)
        scale = scale.replace("int(i ", f"int(i / {packed.block}u ")
        value = f"float({value}) * {scale}"
    text = f"float {name}_param(uint i) {{\n    return {value};\n}}\n"
    if uniform:
        text += f"\nfloat {name}_weight(uint i) {{\n    return {name}_w[i >> 2u][i & 3u];\n}}\n"
    return text
