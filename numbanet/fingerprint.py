"""Digest of a kernel's behaviour: the key under which its compiled code is kept.

It follows what determines the machine code and nothing else: byte code with its constants and
names, and the values that a function captures or names, recursively. So it also reads intrinsics
with the functions that write their code, and what `overload` and Numba's registries hold in place
of a function. Where code stands, how it is commented, and what is never called does not count;
libraries count by their names, because their versions are part of every key.
"""

import ast
import dis
import enum
import hashlib
import importlib
import inspect
import sys
import types as python_types
from functools import cache, lru_cache
from typing import NamedTuple

import llvmlite.ir
import numba
import numpy as np
from numba.core import imputils
from numba.core.typing import templates

LIBRARIES = {"llvmlite", "numba", "numba_cuda", "numpy", *sys.stdlib_module_names}
CALLABLES = (python_types.FunctionType, python_types.BuiltinFunctionType, np.ufunc, type)
CONSTANTS = (int, float, complex, str, bytes, np.generic, type(None), type(...))
UNSEEN = {"_abc_impl"}  # among the members of a class: bookkeeping of Python's


class NotCacheable(Exception):
    """A function captures a value whose behaviour has no digest."""


def fingerprint(function, target: str = "cpu") -> str:
    """Digest of a function's behaviour: equal in every process, for equal code and constants.

    Args:
        target: "cpu" or "cuda"; overloads for the other one are not read.

    Raises:
        NotCacheable: it captures, or names, a value of a kind that is not known here.
    """
    return Reader(target).of(function)


def digest(*parts) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


@cache
def source_digest(module: str) -> str:
    """Digest of a module's code; comments, docstrings and the layout do not count."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            del node.body[0]
    return digest(ast.dump(tree))


def is_library(value) -> bool:
    """Whether a value is identified by its name; a function made within another one is not."""
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", "")
    return module.partition(".")[0] in LIBRARIES and "<locals>" not in name


class Reader:
    """Digests of values, followed from one function or from several, which share their callees."""

    def __init__(self, target):
        self._target = target
        self._digests = {}  # of functions and classes met before, None while one is being read
        typings, codes = templates.builtin_registry.globals, imputils.builtin_registry.functions
        self._registered = registered(target, len(typings), len(codes))

    def of(self, value) -> str:
        if isinstance(value, enum.Enum):
            return digest("member", type(value).__name__, value.name, self.of(value.value))
        if isinstance(value, CONSTANTS):
            return digest(type(value).__name__, repr(value))
        if isinstance(value, (tuple, list)):
            fields = getattr(value, "_fields", None)  # of a named tuple
            return digest(type(value).__name__, fields, *map(self.of, value))
        if isinstance(value, np.ndarray):
            return digest("array", value.dtype, value.shape, value.tobytes().hex())
        if isinstance(value, (numba.types.Type, llvmlite.ir.Type)):
            return digest("type", value)
        if isinstance(value, python_types.ModuleType):
            # numba.types becomes another module, of the same content, when numba-cuda is imported.
            return digest("module", value.__name__.replace("numba.core.", "numba."))
        if isinstance(value, frozenset):
            return digest("frozenset", sorted(map(self.of, value)))
        if isinstance(value, (np.dtype, slice, range)):
            return digest(type(value).__name__, value)
        if isinstance(value, (python_types.MappingProxyType, dict)):
            return self.of(tuple(value.items()))
        if isinstance(value, CALLABLES) or hasattr(value, "__wrapped__"):
            return self.of_callable(value)
        raise NotCacheable(f"{type(value).__name__} {value!r:.80}")

    def of_callable(self, value) -> str:
        """Digest of a function, class, jitted function or intrinsic; each is read once."""
        if value not in self._digests:
            self._digests[value] = None
            self._digests[value] = digest(self.of_named(value), *self.replacements(value))
        return self._digests[value] or "itself"

    def of_named(self, value) -> str:
        if is_library(value) or isinstance(value, CALLABLES[1:3]):
            name = getattr(value, "__qualname__", value.__name__)
            return digest("library", getattr(value, "__module__", None), name)
        if isinstance(value, type):
            return self.of_class(value)
        if isinstance(value, python_types.FunctionType):
            return self.of_function(value)
        if hasattr(value, "targetoptions"):
            options = sorted(map(repr, value.targetoptions.items()))
            compiler = self.of(value._compiler.pipeline_class) if self._target == "cpu" else ""
            return digest("jitted", options, compiler, self.of(value.py_func))
        return digest(type(value).__name__, self.of(value.__wrapped__))

    def of_class(self, value) -> str:
        if hasattr(value, "_fields"):
            return digest("named tuple", value.__name__, value._fields)
        if issubclass(value, enum.Enum):
            return digest("enumeration", *map(self.of, value))
        members = [
            (name, self.of(behind(member)))
            for name, member in vars(value).items()
            if name not in UNSEEN and (callable(member) or not name.startswith("__"))
        ]
        return digest("class", value.__name__, sorted(members), *map(self.of, value.__bases__))

    def of_function(self, function) -> str:
        code, scope = read_code(function.__code__), function.__globals__
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        captured = {name: cell.cell_contents for name, cell in cells}
        named = {name: scope[name] for name in code.globals if name in scope}
        attributes = self.attributes(code, [*captured.values(), *named.values()])
        known = [
            [(name, self.of(value)) for name, value in values.items()]
            for values in (captured, named)
        ]
        defaults = self.of(function.__defaults__), self.of(function.__kwdefaults__)
        return digest("function", code.digest, *known, attributes, defaults)

    def attributes(self, code, values) -> list[tuple[str, str]]:
        """Attributes that a function may read from modules, given or imported."""
        found = []
        modules = [value for value in values if isinstance(value, python_types.ModuleType)]
        modules += map(module_of, code.imports)
        for module in modules:  # grows: a package's modules are among its attributes
            is_ours = module.__name__.partition(".")[0] not in LIBRARIES
            for name in code.attributes:
                value = getattr(module, name, None)
                if isinstance(value, python_types.ModuleType):
                    modules += [value] if value not in modules else []
                elif hasattr(module, name) and is_ours:
                    found.append((name, self.of(value)))
                elif isinstance(value, CALLABLES):
                    found += [(name, each) for each in self.replacements(value)]
        return found

    def replacements(self, value) -> list[str]:
        """Digests of the replacements of a function that others than Numba registered."""
        return [self.of(each) for each in self._registered.get(id(value), ())]


@lru_cache(2)
def registered(target: str, n_typings: int, n_codes: int) -> dict[int, list]:
    """Overloads, typing classes and code that functions were given, by the functions' identity.

    They stand in the first entries of Numba's two registries, which only grow. Those of Numba
    itself, and intrinsics, which are their own, are left out.
    """
    found = {}
    for value, kind in templates.builtin_registry.globals[:n_typings]:
        for template in getattr(kind, "templates", ()):
            overload = getattr(template, "_overload_func", None)
            if overload is not None and not is_library(overload):
                options = sorted(map(repr, template._jit_options.items()))
                if template.metadata.get("target", target) in (target, "generic"):
                    found.setdefault(id(value), []).append((overload, *options))
            elif not is_library(template) and not hasattr(value, "_defn"):
                found.setdefault(id(value), []).append(template)
    for implementation, value, signature in imputils.builtin_registry.functions[:n_codes]:
        if not is_library(implementation) and not hasattr(value, "_defn"):
            found.setdefault(id(value), []).append((implementation, str(signature)))
    return found


def module_of(name: str):
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError) as error:
        raise NotCacheable(f"import of {name!r}: {error}") from error


def behind(member):
    """Function of a method or a property of a class; other values unchanged."""
    for name in ("__func__", "fget", "func"):
        member = getattr(member, name, member)
    return member


class Code(NamedTuple):
    """Digest of a code object with the functions defined in it, and names that it uses."""

    digest: str
    globals: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: tuple[str, ...]


@cache
def read_code(code) -> Code:
    """Digest of byte code, its constants and the names of its variables, without docstrings."""
    instructions = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    variables = code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    exceptions = getattr(code, "co_exceptiontable", b"").hex()
    nested = [read_code(each) for each in code.co_consts if isinstance(each, python_types.CodeType)]

    def operands(kind, *operations):
        own = [each.argval for each in instructions if each.opname in operations]
        return tuple(dict.fromkeys(own + [name for each in nested for name in getattr(each, kind)]))

    return Code(
        digest("code", *variables, *counts, exceptions, *map(operation, instructions)),
        operands("globals", "LOAD_GLOBAL", "LOAD_NAME"),
        operands("imports", "IMPORT_NAME"),
        operands("attributes", "LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"),
    )


def operation(instruction) -> str:
    """An instruction, with the constant or the name that its operand refers to."""
    if instruction.opcode in dis.hasconst:
        operand = constant_digest(instruction.argval)
    else:
        operand = instruction.argrepr if instruction.opcode in dis.hasname else instruction.arg
    return f"{instruction.opname} {operand}"


def constant_digest(value) -> str:
    if isinstance(value, python_types.CodeType):
        return read_code(value).digest
    if isinstance(value, (tuple, frozenset)):
        digests = list(map(constant_digest, value))
        return digest(type(value).__name__, *(digests if type(value) is tuple else sorted(digests)))
    return digest(type(value).__name__, repr(value))
