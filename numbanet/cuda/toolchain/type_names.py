"""Names of Numba's types: for keys, and to find the type that a stored function returns."""

from numbanet.fingerprint import NotCacheable

SCALARS = {
    "none", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
}  # fmt: skip


def described(kind) -> str | list:
    """Name of a type, or its parts.

    Raises:
        NotCacheable: it may differ from another one of this name.
    """
    from numba.cuda import types

    if isinstance(kind, (types.IntegerLiteral, types.BooleanLiteral)):
        return ["literal", kind.literal_value]
    if type(kind) is types.Array and kind.layout in "CFA":
        element = described(kind.dtype)
        return ["array", element, kind.ndim, kind.layout, kind.mutable, kind.aligned]
    if isinstance(kind, types.BaseTuple):
        parts = [described(each) for each in kind]
        owner = getattr(kind, "instance_class", None)
        name = owner and (owner.__module__, owner.__qualname__, kind.fields)
        return [type(kind).__name__, *(name or ()), parts]
    if str(kind) in SCALARS and getattr(types, str(kind), None) == kind:
        return str(kind)
    raise NotCacheable(f"a function of {kind}")


def type_of(description):
    """Inverse of described, for types that functions return.

    Raises:
        ValueError: it is none of them.
    """
    from numba.cuda import types

    if isinstance(description, str) and description in SCALARS:
        return getattr(types, description)
    kind, *parts = description
    if kind == "literal" and isinstance(parts[0], int):
        return types.literal(parts[0])
    if kind == "array":
        element, n_dims, layout, mutable, aligned = parts
        return types.Array(type_of(element), n_dims, layout, not mutable, aligned=aligned)
    if kind in ("Tuple", "UniTuple") and len(parts) == 1:
        return types.Tuple([type_of(each) for each in parts[0]])
    raise ValueError(f"no type: {description!r:.80}")
