"""Export of a model as a function of WGSL, and a compute shader that calls it for many samples."""

import numpy as np

from numbanet.exports.lowering import lowered
from numbanet.exports.packing import Packed
from numbanet.exports.printing import Printer, float_text
from numbanet.exports.program import BOOL, F32, I32, U32, Program, Value

GROUP = 64  # samples of a workgroup
PARAMETER = {
    "float32": "return {name}_values[i];",
    "float16": "return unpack2x16float({name}_values[i >> 1u])[i & 1u];",
    "int8": (
        "let number = extractBits(bitcast<i32>({name}_values[i >> 2u]), 8u * (i & 3u), 8u);\n"
        "    return f32(number) * {name}_scales[i / {block}u];"
    ),
}
WORDS = {"float32": "f32", "float16": "u32", "int8": "u32"}
TEMPLATE = """\
// {title}
//
// {name}_evaluate(x): the {n_outputs} outputs for {n_inputs} inputs.
// {name}_main: the same for {name}_inputs [n, {n_inputs}], into {name}_outputs [n, {n_outputs}].
// {name}_values: {kind}
// Made by numbanet.

@group(0) @binding(0) var<storage, read> {name}_values: array<{word}>;
{scales}@group(0) @binding(2) var<storage, read> {name}_inputs: array<f32>;
@group(0) @binding(3) var<storage, read_write> {name}_outputs: array<f32>;

fn {name}_param(i: u32) -> f32 {{
    {parameter}
}}

fn {name}_evaluate(inputs: array<f32, {n_inputs}>) -> array<f32, {n_outputs}> {{
    var x = inputs;
    var y: array<f32, {n_outputs}>;
{body}    return y;
}}

@compute @workgroup_size({group})
fn {name}_main(
    @builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>
) {{
    let i = id.y * groups.x * {group}u + id.x;
    if (i >= arrayLength(&{name}_inputs) / {n_inputs}u) {{
        return;
    }}
    var x: array<f32, {n_inputs}>;
    for (var k = 0u; k < {n_inputs}u; k++) {{
        x[k] = {name}_inputs[i * {n_inputs}u + k];
    }}
    let y = {name}_evaluate(x);
{stores}}}
"""
KINDS = {
    "float32": "all parameters in order.",
    "float16": "all parameters in order, two halves in a word.",
    "int8": "all parameters in order, four in a word; {name}_scales: one for {block} of them.",
}


TYPES = {F32: "f32", I32: "i32", U32: "u32", BOOL: "bool"}


class WgslPrinter(Printer):
    types = TYPES
    endless = "loop {"

    def parameter(self, index: Value) -> str:
        return f"{self.name}_param({self.text(index)})"

    def float_literal(self, number):
        return f"{float_text(number)}f" if number >= 0 else f"({float_text(number)}f)"

    def not_finite(self, value):
        # A constant that is not finite is an error, so it is computed at run time.
        bits = int(np.float32(value.value).view(np.uint32))
        return f"bitcast<f32>({bits}u | (arrayLength(&{self.name}_values) & 0u))"

    def integer_literal(self, type, number):
        if type == U32:
            return f"{number}u"
        if number == -(2**31):
            return "(-2147483647i - 1i)"
        return f"{number}i" if number >= 0 else f"({number}i)"

    def infix(self, value, sign):
        a, b = value.args
        if value.op in ("shl", "shr"):
            amount = self.text(b) if b.type == U32 else f"u32({self.text(b)})"
            return f"{self.text(a)} {sign} {amount}"
        if value.type == BOOL and value.op in ("and", "or", "xor"):
            sign = {"xor": "!="}.get(value.op, sign)
        # Precedence is not C's, and mixing kinds of operators is an error.
        return f"{self.text(a)} {sign} {self.text(b)}"

    def function(self, value):
        args = [self.text(arg) for arg in value.args]
        op = value.op
        if op == "select":
            return f"select({args[2]}, {args[1]}, {args[0]})"
        names = {"float_to_bits": "bitcast<u32>", "bits_to_float": "bitcast<f32>"}
        return f"{names.get(op, op)}({', '.join(args)})"

    def define(self, type, name, text):
        return f"let {name} = {text};"

    def declare(self, type, name, start):
        end = f" = {start}" if start else ""
        return f"var {name}: {self.types[type]}{end};"

    def declare_array(self, array):
        return f"var {array.name}: array<{self.types[array.type]}, {array.length}>;"

    def loop_head(self, loop, name):
        type = loop.variable.type
        start, stop = self.text(loop.start), self.text(loop.stop)
        step = self.integer_literal(type, loop.step)
        return (
            f"for (var {name}: {self.types[type]} = {start}; {name} < {stop}; {name} += {step}) {{"
        )


def wgsl_module(program: Program, packed: Packed, name: str, title: str) -> str:
    """Text of the module.

    Args:
        program: of the model.
        packed: the parameters.
        name: begins every name.
        title: one line about the model.

    Raises:
        ValueError: there are no outputs.
    """
    if not program.n_outputs:
        raise ValueError("an encoding without outputs has no WGSL module")
    program = lowered(program)
    texts = {"name": name, "block": packed.block}
    scales = f"@group(0) @binding(1) var<storage, read> {name}_scales: array<f32>;\n"
    stores = "".join(
        f"    {name}_outputs[i * {program.n_outputs}u + {k}u] = y[{k}];\n"
        for k in range(program.n_outputs)
    )
    return TEMPLATE.format(
        title=title, name=name, n_inputs=program.n_inputs, n_outputs=program.n_outputs,
        group=GROUP, word=WORDS[packed.precision], stores=stores,
        kind=KINDS[packed.precision].format(**texts),
        scales=scales if packed.scales is not None else "",
        parameter=PARAMETER[packed.precision].format(**texts),
        body=WgslPrinter(name).statements(program),
    )  # fmt: skip
