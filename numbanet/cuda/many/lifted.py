"""Lifting of a kernel from one model to many: blocks along z are models.

Whatever memory a model has, the next model's lies a stride behind it. So a kernel is given a stride
for each of its addresses, and each block adds those up to its model before it does what it did.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import block_index_z
from numbanet.cuda.launch.types import Address
from numbanet.device import device

Types = tuple[str, ...]


def lifted_types(argument_types: Types) -> Types:
    """Types of a lifted kernel: the kernel's own, a stride for each address, and blocks along z."""
    n_addresses = argument_types.count(Address)
    return (*argument_types, *(Address,) * n_addresses, "uint32")


@cache
def lifted(function: Callable, argument_types: Types) -> Callable:
    """Kernel (arguments, strides, n) for models that each have n blocks along z."""
    kernel, of_model, n_arguments = device(function), nothing_yet, len(argument_types)
    n_addresses, last = 0, len(lifted_types(argument_types)) - 1
    for place, name in enumerate(argument_types):
        if name == Address:
            of_model = then_address(of_model, place, n_arguments + n_addresses)
            n_addresses += 1
        else:
            of_model = then_number(of_model, place)

    def many(*arguments):
        model = np.uint64(block_index_z() // arguments[last])
        kernel(*of_model(model, arguments))

    many.__qualname__ = f"{function.__qualname__}_of_many"
    return many


@device
def nothing_yet(model, arguments):
    return ()


def then_address(before, place: int, stride: int):
    """Device function (model, arguments) -> what `before` returns, and a model's address."""

    @device
    def of_model(model, arguments):
        address = np.uint64(arguments[place] + model * arguments[stride])
        return before(model, arguments) + (address,)  # noqa: RUF005

    return of_model


def then_number(before, place: int):
    """Device function (model, arguments) -> what `before` returns, and a number as it is."""

    @device
    def of_model(model, arguments):
        return before(model, arguments) + (arguments[place],)  # noqa: RUF005

    return of_model
