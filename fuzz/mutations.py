"""Small damage to bytes and to JSON values."""

import copy
import math
from typing import Any

import numpy as np

N_CHANGES = (1, 1, 1, 2, 3, 4)
EXTREMES = (
    0, -1, 1, 2, 3, 7, 16, 128, 255, 2**15, 10**6, 2**24, 2**31 - 1, 2**31, 2**32, -(2**31), 10**12,
    2**53 + 1, 2**63, 2**64, 10**40, 10**400, -(10**5000), 0.0, -0.0, 0.5, 1.0, 1 - 2**-53, 1e-3,
    1e-39, 1e-50, 5e-324, 1e30, 3.4e38, 1e39, 1e308, math.nan, math.inf, -math.inf, True, False,
    None, "", "\0", "\ud800", "None", "otype", "Adam", "hash", "é" * 1000, "x" * 100_000, [], {},
    [[]], [{}], {"otype": None}, [0] * 1000,
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff" * 8, b"{", b"}", b"[", b"]" * 10, b'"', b'\\"' * 100, b"//", b"#", b"/*", b"*/",
    b",", b":", b"1e999", b"NaN", b"-Infinity", b"9" * 5000, b"\\ud800", b"\\u0000", b"[" * 3000,
    b'{"a":' * 3000, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"null", b"true",
)  # fmt: skip


def choice(rng: np.random.Generator, values) -> Any:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """The bytes with one to four changes: flipped, cut, doubled, moved, or others between them."""
    data = bytearray(data)
    for _ in range(int(rng.choice(N_CHANGES))):
        start, stop = sorted(int(k) for k in rng.integers(0, len(data) + 1, 2))
        near = min(stop, start + int(rng.integers(1, 17)))
        match int(rng.integers(7)):
            case 0 if data:
                data[start % len(data)] ^= 1 << int(rng.integers(8))
            case 1:
                del data[start:near]
            case 2:
                del data[start:]
            case 3:
                data[start:start] = choice(rng, TOKENS)
            case 4:
                data[start:near] = choice(rng, TOKENS)
            case 5:
                data[start:start] = data[start:stop][:4096]
            case _:
                data[start:near] = rng.bytes(near - start)
    return bytes(data)


def places(value: Any, n_left: int = 20) -> list[tuple[Any, Any]]:
    """(container, key or index) of the values within a JSON value, down to some depth."""
    found = []
    for key in _keys(value):
        found.append((value, key))
        if isinstance(value[key], dict | list) and n_left:
            found += places(value[key], n_left - 1)
    return found


def copied(value: Any) -> Any:
    """A copy; the value itself where it is too deep for one."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return value


def mutated(rng: np.random.Generator, value: dict[str, Any]) -> dict[str, Any]:
    """The JSON object with one to four changes: other values, names and places, or deep ones."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.choice(N_CHANGES))):
        known = places(value)
        if not known:
            break
        container, key = choice(rng, known)
        match int(rng.integers(8)):
            case 0 | 1 | 2:
                container[key] = copied(choice(rng, EXTREMES))
            case 3:
                other, name = choice(rng, known)
                container[key] = copied(other[name]) if name in _keys(other) else None
            case 4:
                del container[key]
            case 5 if isinstance(container, dict):
                container[choice(rng, ("colour", "otype", "nested", "\0", "n" * 10_000, ""))] = (
                    container.pop(key)
                )
            case 6:
                for _ in range(int(rng.choice([1, 10, 40, 400]))):
                    container[key] = choice(rng, ([container[key]], {"nested": container[key]}))
                    if rng.random() < 0.5:
                        container[key] = {"otype": "EMA", "nested": container[key]}
            case _:
                container[key] = [copied(container[key])] * int(rng.choice([0, 2, 100]))
    return value


def _keys(container: Any):
    return container.keys() if isinstance(container, dict) else range(len(container))
