"""What campaigns have to survive: case 3 is a segmentation fault, case 5 a raw error."""

import ctypes

from fuzz.campaign import Format


def target(number, folder):
    if number == 3:
        ctypes.string_at(0)
    if number == 5:
        raise KeyError("raw")
    if number == 6:
        raise ValueError("clear")
    if number == 7:
        raise ValueError("long" * 1000)


def number(rng):
    return int(rng.bit_generator.seed_seq.entropy[1])


FORMAT = Format("crashing", number, target, (ValueError,))
