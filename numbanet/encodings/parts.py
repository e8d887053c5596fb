"""Structure of encodings: parts with kernels of their own, constant features, partitions."""

from functools import cache, cached_property
from typing import Any, NamedTuple

from numbanet.device import belongs_to, device


class Part(NamedTuple):
    """Encoding within another one, with the offsets of its inputs, features and parameters."""

    encoding: Any  # an AbstractEncoding
    first_dim: int = 0
    first_column: int = 0
    first_param: int = 0


class Constant(NamedTuple):
    """Constant features: their value, and their range."""

    first_column: int
    stop_column: int
    value: float


def shifted(constants: tuple[Constant, ...], n_columns: int) -> tuple[Constant, ...]:
    """Same features, n_columns further to the right."""
    return tuple(
        Constant(first + n_columns, stop + n_columns, value) for first, stop, value in constants
    )


@cache
def with_numbers(reads_numbers: bool):
    """Device function (params, numbers): the parameters, with the numbers if they are read."""

    @device
    def both(params, numbers):
        return params, numbers

    @device
    def params_alone(params, numbers):
        return params

    return both if reads_numbers else params_alone


def of_all(name: str, numbers_samples: bool = False):
    """Function of the only partition, which calls the encoding's function of a name.

    The partition comes before that one's arguments, and perhaps two numbers after it.
    """

    def of_partition(self):
        function = getattr(self, name)
        owner = belongs_to(f"{type(self).__name__}.{name}")

        def of_partition(partition, *arguments):
            function(*arguments)

        def of_sample(partition, i, n, *arguments):
            function(*arguments)

        return function and device(owner(of_sample if numbers_samples else of_partition))

    return cached_property(of_partition)
