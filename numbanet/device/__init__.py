"""Vocabulary of device code: functions that Numba compiles for the CPU and for CUDA alike.

Everything that is a formula is written with `@device` and float32 constants. Numba compiles such a
function for whichever target calls it, also through closures, so no formula exists twice.
"""
# ruff: noqa: F401 (imported to be found here)

from numbanet.device.declare import HALF, ONE, PI, TWO, ZERO, belongs_to, device, exact, nothing
from numbanet.device.elementary import (
    cos,
    exp,
    exp_minus_one,
    less_even,
    log,
    log_one_plus,
    log_one_plus_small,
    power_of_two,
    sin,
    sin_pi,
)
from numbanet.device.local import (
    copy_vector,
    flat_view,
    float_bits,
    four_from,
    local_array,
    multiply_add,
    set_four,
    uint32_view,
)
from numbanet.device.loops import unrolled, vectorized
from numbanet.device.registers import (
    at_least,
    at_most,
    blocks_per_grid_for,
    float_from_bits,
    floor_to_int,
    in_register,
    lane_number,
    opaque,
    select,
    thread_index_for,
)
