"""Export of a model as one C99 header: standard library only, no allocation, reentrant."""

import numpy as np

from numbanet.exports.packing import Packed
from numbanet.exports.printing import Printer, float_text
from numbanet.exports.program import BOOL, F32, I32, I64, NARROW, U32, U64, Program, Value

HELPERS = """
static inline float {name}_float(uint32_t bits) {{
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}}

static inline uint32_t {name}_bits(float number) {{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}}
"""
HALF = """
static inline float {name}_half(uint16_t half) {{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    if (rest >= 0x7C00u) return {name}_float(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
    float size = {name}_float(rest << 13) * 5.19229686e+33f; /* 2^112 */
    return {name}_float(sign | {name}_bits(size));
}}
"""
PARAMETER = {
    "float32": "return params->values[i];",
    "float16": "return {name}_half(params->values[i]);",
    "int8": "return (float)params->values[i] * params->scales[i / {block}];",
}
ELEMENTS = {"float32": "float", "float16": "uint16_t", "int8": "int8_t"}
TEMPLATE = """\
/* {title}
 *
 * {call}(params, x, y): x holds {n_inputs} inputs, y gets {n_outputs} outputs.
 * {note}
 * Made by numbanet. C99; any number of threads may call it at the same time. */
#ifndef {guard}
#define {guard}

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_N_INPUTS {n_inputs}
#define {upper}_N_OUTPUTS {n_outputs}
#define {upper}_N_PARAMS {n_params}
#define {upper}_N_BYTES {n_bytes} /* of the parameters in a file */

typedef struct {{
    const {element} *values; /* [{n_params}] */{scales}
}} {name}_params;
{helpers}
static inline float {name}_param(const {name}_params *params, uint32_t i) {{
    {parameter}
}}

static inline void {call}(const {name}_params *params, const float *x, float *y) {{
{unused}{body}}}
{data}
#ifdef __cplusplus
}}
#endif

#endif
"""


TYPES = {
    F32: "float", I32: "int32_t", U32: "uint32_t", I64: "int64_t", U64: "uint64_t", BOOL: "int",
}  # fmt: skip


class CPrinter(Printer):
    types = TYPES

    def parameter(self, index: Value) -> str:
        return f"{self.name}_param(params, {self.text(index)})"

    def literal(self, value):
        return str(int(value.value)) if value.type == BOOL else super().literal(value)

    def float_literal(self, number):
        return float_text(number) + "f" if number >= 0 else f"({float_text(number)}f)"

    def not_finite(self, value):
        bits = int(np.float32(value.value).view(np.uint32))
        return f"{self.name}_float(0x{bits:08X}u)"

    def integer_literal(self, type, number):
        if type == U32:
            return f"{number}u"
        if type == U64:
            return f"UINT64_C({number})"
        if number == -(2**31) or number == -(2**63):
            return f"(-{-number - 1}{'' if type == I32 else 'LL'} - 1)"
        text = str(number) if type == I32 else f"INT64_C({number})"
        return text if number >= 0 else f"({text})"

    def conversion(self, type, value):
        text = self.text(value)
        if type in NARROW and value.type == F32:
            return f"({self.types[type]}){text}" if type == I32 else f"(uint32_t)(int64_t){text}"
        return f"({self.types[type]}){text}"

    def function(self, value):
        args = [self.text(arg) for arg in value.args]
        op, type = value.op, value.type
        if op == "select":
            return f"{args[0]} ? {args[1]} : {args[2]}"
        if op in ("min", "max"):
            if type == F32:
                return f"f{op}f({args[0]}, {args[1]})"
            return f"{args[0]} {'<' if op == 'min' else '>'} {args[1]} ? {args[0]} : {args[1]}"
        if op == "mulhi":
            return f"(uint32_t)((uint64_t){args[0]} * {args[1]} >> 32)"
        if op == "float_to_bits":
            return f"{self.name}_bits({args[0]})"
        if op == "bits_to_float":
            return f"{self.name}_float({args[0]})"
        if op == "abs":
            return f"fabsf({args[0]})" if type == F32 else f"{args[0]} < 0 ? -{args[0]} : {args[0]}"
        return f"{op}f({', '.join(args)})"


def c_header(program: Program, packed: Packed, name: str, title: str, embed: bool) -> str:
    """Text of the header.

    Args:
        program: of the model.
        packed: the parameters.
        name: begins every name in the header.
        title: one line about the model.
        embed: whether the parameters are in the header; else the caller reads them from a file.
    """
    body = CPrinter(name).statements(program)
    scales = f"\n    const float *scales; /* one for each {packed.block} values */"
    texts = {"name": name, "block": packed.block}
    helpers = HELPERS + (HALF if packed.precision == "float16" else "")
    note = (
        f"&{name}_trained are its parameters."
        if embed
        else f"The file holds the values of {name}_params one after the other, little-endian."
    )
    unused = "" if "param(params" in body else "    (void)params;\n"
    unused += "" if "x[" in body else "    (void)x;\n"
    unused += "" if program.n_outputs else "    (void)y;\n"
    return TEMPLATE.format(
        title=title, note=note, call=f"{name}_evaluate", guard=f"{name.upper()}_H", name=name,
        upper=name.upper(), n_inputs=program.n_inputs, n_outputs=program.n_outputs,
        n_params=packed.values.size, n_bytes=len(packed.tobytes()), unused=unused,
        element=ELEMENTS[packed.precision], scales=scales if packed.scales is not None else "",
        helpers=helpers.format(name=name), parameter=PARAMETER[packed.precision].format(**texts),
        body=body, data=embedded(packed, name) if embed else "",
    )  # fmt: skip


def embedded(packed: Packed, name: str) -> str:
    """Parameters as arrays in C."""
    values = rows([number_text(each) for each in packed.values.tolist()])
    element = ELEMENTS[packed.precision]
    size = max(packed.values.size, 1)
    text = f"\nstatic const {element} {name}_values[{size}] = {{\n{values or '0'}\n}};\n"
    fields = f"{name}_values"
    if packed.scales is not None:
        numbers = rows([number_text(each) for each in packed.scales.tolist()]) or "0"
        size = max(packed.scales.size, 1)
        text += f"\nstatic const float {name}_scales[{size}] = {{\n{numbers}\n}};\n"
        fields += f", {name}_scales"
    return text + f"\nstatic const {name}_params {name}_trained = {{{fields}}};\n"


def number_text(number) -> str:
    return str(number) if isinstance(number, int) else float_text(number) + "f"


def rows(numbers: list[str]) -> str:
    return ",\n".join(", ".join(numbers[k : k + 12]) for k in range(0, len(numbers), 12))
