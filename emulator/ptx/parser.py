"""PTX text, as NVVM and inline assembly write it, to kernels."""

import bisect
import re

from emulator.ptx.dtypes import DTYPES, REGISTER_DTYPES
from emulator.ptx.errors import PTXSyntaxError
from emulator.ptx.syntax import (
    Immediate,
    Instruction,
    Kernel,
    Label,
    Memory,
    Name,
    Negated,
    Pair,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)

IGNORED = re.compile(
    r"//[^\n]*|/\*.*?\*/|^[ \t]*\.(?:version|target|address_size|loc|file)\b[^\n]*"
    r"|^[ \t]*\.section\b[^{]*\{.*?\}",
    re.M | re.S,
)
SPACE = re.compile(r"\s*")
MODULE_ITEM = re.compile(
    r"""\s*(?: (?P<skip>\.(?:visible|extern|weak|common)\b | ; | \.(?:pragma|alias)[^;]*;)
      | \.entry\s+(?P<entry>[\w$.]+)\s*(?:\((?P<parameters>[^)]*)\))?(?P<limits>[^{;]*)\{
      | (?P<function>\.func\b[^{;]*[{;])
      | (?P<variable>\.(?:global|const|shared)\b[^;]*);)""",
    re.X,
)
STATEMENT = re.compile(
    r"""\s*(?: (?P<open>\{) | (?P<close>\}) | (?P<empty>;) | (?P<label>[A-Za-z_$][\w$]*)\s*:
      | (?P<statement>[^\s{};][^;]*);)""",
    re.X,
)
DECLARATION = re.compile(
    r"\.(?P<space>\w+)\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+"
    r"(?:\.ptr\b(?:\s*\.\w+(?:\s+\d+)?)*\s+)?(?P<names>[^.].*)",
    re.S,
)
DECLARED = re.compile(
    r"(?P<name>[\w$.%]+)\s*(?P<sizes>(?:\[\d*\]\s*)*)(?:=\s*(?P<initial>.*))?", re.S
)
INSTRUCTION = re.compile(r"(?:@(!?)\s*([\w$%.]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
NUMBER = re.compile(r"(-?)(?:0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})|(0[xX]\w+?|\d+)U?)")
REFERENCE = re.compile(r"([A-Za-z_$%][\w$.]*)\s*((?:[+-]\s*-?\w+\s*)*)")
ADDRESS = re.compile(r"\[\s*([^\s+\]]+?)\s*((?:[+-]\s*-?\w+\s*)*)\]")


def parse(text):
    """Returns ({name: Kernel}, {name: Variable}, target) of a module."""
    parser = Parser(text)
    parser.module()
    target = re.search(r"^\s*\.target\s+(\w+)", text, re.M)
    return parser.kernels, parser.variables, target.group(1) if target else ""


class Parser:
    def __init__(self, text):
        self.text = IGNORED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
        self.line_starts = [match.end() for match in re.finditer("^", text, re.M)]
        self.kernels, self.variables = {}, {}
        self.at = 0
        self.n_scopes = 0

    def line(self):
        return bisect.bisect_right(self.line_starts, self.at)

    def error(self, message):
        text = self.text[self.at : self.at + 200].strip().split("\n")[0]
        return PTXSyntaxError(message).at(self.line(), text)

    def match(self, pattern, expected):
        """The next item; `self.at` stays at its first character while it is read."""
        self.at = SPACE.match(self.text, self.at).end()
        match = pattern.match(self.text, self.at)
        if match is None:
            at_end = self.at == len(self.text)
            raise self.error("unexpected end of the text" if at_end else f"expected {expected}")
        return match

    # modules

    def module(self):
        while self.text[self.at :].strip():
            item = self.match(MODULE_ITEM, "a kernel or a variable")
            if item["entry"]:
                self.kernel(item)
            elif item["variable"]:
                for variable in self.declaration(item["variable"], self.variables):
                    self.variables[variable.name] = variable
                self.at = item.end()
            elif item["function"]:  # skipped: kernels that call one do not run
                depth, self.at = item["function"].count("{"), item.end()
                while depth and self.at < len(self.text):
                    depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
                    self.at += 1
            else:
                self.at = item.end()

    def declaration(self, text, names):
        """`.space .align n .type name[n] = {...}, ...`"""
        match = DECLARATION.fullmatch(text.strip())
        if match is None or match["type"] not in DTYPES:
            raise self.error("expected a variable")
        size = DTYPES[match["type"]].itemsize
        variables = []
        for part in split(match["names"]):
            declared = DECLARED.fullmatch(part)
            if declared is None:
                raise self.error("expected a variable")
            n_bytes = size
            for extent in re.findall(r"\[(\d*)\]", declared["sizes"]):
                n_bytes *= int(extent or 0)
            values = re.split(r"[{},\s]+", declared["initial"] or "")
            initial = [self.initial(value, names) for value in values if value]
            alignment = int(match["align"] or size)
            variables.append(
                Variable(
                    declared["name"], match["space"], match["type"], alignment, n_bytes, initial
                )
            )
        return variables

    def initial(self, value, names):
        return self.operand(re.sub(r"generic\(([^)]*)\)", r"\1", value), names)

    def kernel(self, item):
        parameters = split(item["parameters"] or "")
        parameters = [variable for p in parameters for variable in self.declaration(p, {})]
        limits = re.findall(r"(\.\w+)\s+((?:\d+\s*,?\s*)+)", item["limits"])
        limits = {name: [int(n) for n in re.findall(r"\d+", values)] for name, values in limits}
        self.current = kernel = Kernel(item["entry"], parameters, limits)
        self.at = item.end()
        self.scope({**self.variables, **{v.name: v for v in parameters}}, {})
        for item in kernel.body:
            if item.is_branch and not isinstance(item.operands[-1], Vector):
                raise PTXSyntaxError("unknown label").at(item.line, item.text)
        self.kernels[kernel.name] = kernel

    # bodies

    def scope(self, outer_names, outer_labels):
        """Up to and including `}`: registers, variables and labels of its own."""
        kernel, names, labels = self.current, dict(outer_names), dict(outer_labels)
        self.n_scopes += 1
        suffix, first = f"#{self.n_scopes}", len(kernel.body)
        tables, last_label = {}, None
        while True:
            item = self.match(STATEMENT, "a statement")
            text = (item["statement"] or "").rstrip()
            if item["open"]:
                self.at = item.end()
                self.scope(names, labels)
                continue
            if item["close"]:
                break
            if item["label"]:
                last_label = item["label"]
                labels[last_label] = last_label + suffix
                kernel.body.append(Label(last_label + suffix))
            elif text.startswith(".branchtargets"):
                tables[last_label] = split(text.removeprefix(".branchtargets"))
            elif text.startswith(".reg"):
                self.registers(text, names)
            elif text.startswith((".local", ".shared", ".param", ".global", ".const")):
                for variable in self.declaration(text, names):
                    names[variable.name] = variable
                    kernel.variables.append(variable)
            elif text and not text.startswith(".pragma"):
                kernel.body.append(self.instruction(text, names))
            self.at = item.end()
        for branch in kernel.body[first:]:
            if branch.is_branch and isinstance(branch.operands[-1], Name):
                name = branch.operands[-1].text
                targets = tables.get(name, [name])
                if all(label in labels for label in targets):  # else they are further out
                    branch.operands[-1] = Vector([labels[label] for label in targets])
        self.at = item.end()

    def registers(self, text, names):
        """`.reg .type name, name<count>, ...`"""
        kind, declared = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.S).groups()
        if kind not in REGISTER_DTYPES:
            raise self.error(f"registers of type .{kind}")
        types = self.current.register_types
        for part in split(declared):
            name, count = re.fullmatch(r"([\w$%]+)(?:<(\d+)>)?", part).groups()
            for one in [f"{name}{k}" for k in range(int(count))] if count else [name]:
                names[one] = Register(len(types))
                types.append(kind)

    def instruction(self, text, names):
        match = INSTRUCTION.fullmatch(text)
        if match is None:
            raise self.error("expected an instruction")
        negated, predicate, opcode, operands = match.groups()
        if predicate:
            predicate = (names.get(predicate), bool(negated))
            if not isinstance(predicate[0], Register):
                raise self.error("expected a predicate register")
        is_call = opcode.startswith("call")
        operands = [] if is_call else [self.operand(part, names) for part in split(operands)]
        text = " ".join(text.split()) + ";"
        return Instruction(opcode, operands, predicate or None, self.line(), text)

    def operand(self, text, names):
        if address := ADDRESS.fullmatch(text):
            base, offset = self.operand(address[1], names), offsets(address[2])
            if isinstance(base, Symbol):
                return Memory(Symbol(base.variable), base.offset + offset)
            return Memory(base, offset)
        if text.startswith("{") and text.endswith("}"):
            return Vector([self.operand(part, names) for part in split(text[1:-1])])
        if text.startswith("!"):
            return Negated(self.operand(text[1:].strip(), names))
        if "|" in text:
            return Pair(*(self.operand(part.strip(), names) for part in text.split("|", 1)))
        if text == "_":
            return Sink()
        if number := NUMBER.fullmatch(text):
            return immediate(*number.groups())
        reference = REFERENCE.fullmatch(text)
        if reference is None:
            raise self.error(f"cannot read the operand {text!r}")
        found = names.get(reference[1])
        if isinstance(found, Variable):
            return Symbol(found, offsets(reference[2]))
        if found is None:
            special = text.startswith("%") or text == "WARP_SZ"
            return Special(text) if special else Name(text)
        return found


def split(text):
    """The parts between the commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        if character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:k].strip())
            start = k + 1
    last = text[start:].strip()
    return [*parts, last] if parts or last else []


def offsets(text):
    """The sum of `+8`, `-8`, `+-8`."""
    terms = re.findall(r"([+-])\s*(-?)(\w+)", text)
    return sum((1 if sign == "+" else -1) * int(minus + n, 0) for sign, minus, n in terms)


def immediate(minus, float32, float64, integer):
    if integer is not None:
        return Immediate(int(minus + integer, 0))
    n_bits = 32 if float32 else 64
    return Immediate(int(float32 or float64, 16) ^ (1 << n_bits - 1 if minus else 0), n_bits)
