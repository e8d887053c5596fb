"""What device functions of users may hold gives in every language what it gives in Python."""

from pathlib import Path

import c_program
import exported_models as models
import numpy as np
import pytest
import test_c
import test_glsl
import test_onnx
import test_wgsl
from test_translation import Strange

from numbanet.device import ONE, TWO, ZERO, device, local_array
from numbanet.exports.errors import ExportError

TEN = np.float32(10)
THIRD = np.float32(0.3)


@device
def divisions(x, params, y):
    n = int(x[0] * TEN)  # rounds towards zero, also below it
    y[0] = np.float32(n)
    y[1] = np.float32(n // 3)
    y[2] = np.float32(n % 3)
    y[3] = np.float32(n // -3)
    y[4] = np.float32(abs(n) % -3)
    y[5] = np.float32(np.int32(n) // np.int32(4))
    y[6] = x[0] // THIRD
    y[7] = x[0] % THIRD
    y[8] = np.float32(n >> 2)
    y[9] = np.float32(n >> 40)


@device
def powers(x, params, y):
    y[0] = x[0] ** 3
    y[1] = (x[0] - np.float32(3)) ** -2
    y[2] = abs(x[0]) ** np.float32(0.5)
    y[3] = np.float32(-int(np.uint32(abs(x[0]) * TEN) + np.uint32(1)))
    y[4] = np.exp2(x[0]) + np.log2(abs(x[0]) + ONE)
    y[5] = np.trunc(x[0] * TEN)


@device
def assigned_on_some_ways(x, params, y):
    if x[0] > ZERO:
        a, b = x[0] * x[1], TWO
    elif x[1] > ZERO:
        a, b = x[1], x[0]
    y[0] = ONE
    if x[0] > ZERO or x[1] > ZERO:
        y[0] = a + b
    is_odd, total = False, ZERO
    for k in range(300):
        if np.float32(0.01) * np.float32(k) > abs(x[0]):
            is_odd = not is_odd
        if k % 2 == 0:
            half = np.float32(k) * x[0]
        else:
            total += half
        total *= np.float32(0.5)
    y[1] = TWO if is_odd else ONE
    y[2] = total
    for k in range(300):
        total = np.float32(0.9) * total + np.float32(1 << (k % 12)) * x[1]
    y[3] = total


@device
def arrays(x, params, y):
    row, other = local_array(6), local_array(6)
    for j in range(6):
        row[j], other[j] = np.float32(j) * x[1], np.float32(j * j) * x[0]
    place = int(TWO * abs(x[0]))
    if x[0] > ZERO:
        y[0] = row[place]
        for j in range(6):
            if x[1] > ZERO:
                row[j] += other[(j + 1) % 6]
            else:
                other[place] = row[j]
    else:
        y[0] = row[2]
        row[place] = TEN
    y[1] = row[0] + TWO * row[3] + other[2]
    y[2] = other[5] + row[place]
    total = ZERO
    for k in range(place):
        total += np.float32(k + 1)
    y[3] = total


@device
def long_loop(x, params, y):
    k, total = 0, ZERO
    while total < TEN:
        total += abs(x[0])
        k += 1
    y[0] = np.float32(k)


LENGTHS = {divisions: 10, powers: 6, assigned_on_some_ways: 4, arrays: 4, long_loop: 1}


class Everyday(Strange):
    """An encoding with one of these functions."""

    def __init__(self, function):
        super().__init__(n_dims=2)
        object.__setattr__(self, "function", function)

    @property
    def n_outputs(self):
        return LENGTHS[self.function]

    @property
    def forward(self):
        return self.function


def example_of(function):
    return models.Example(Everyday(function), None, [])


def inputs_and_outputs(function):
    x = np.random.default_rng(5).uniform(-2, 2, (40, 2)).astype(np.float32)
    y = np.zeros((40, LENGTHS[function]), np.float32)
    for each, row in zip(x, y, strict=True):
        function(each, np.zeros(1, np.float32), row)
    return x, y


def outputs(language, function, x, folder: Path):
    if language == "c":
        if not c_program.COMPILERS:
            pytest.skip("needs gcc or clang")
        return test_c.outputs(example_of(function), x, folder=folder)
    return {"wgsl": test_wgsl, "glsl": test_glsl, "onnx": test_onnx}[language].outputs(
        example_of(function), x
    )


@pytest.mark.parametrize("language", ["c", "wgsl", "glsl", "onnx"])
@pytest.mark.parametrize("function", [divisions, powers, assigned_on_some_ways, arrays])
def test_every_language_agrees(function, language, tmp_path):
    x, expected = inputs_and_outputs(function)
    if (language, function) == ("onnx", arrays):
        with pytest.raises(ExportError, match="known only at run time"):
            outputs(language, function, x, tmp_path)
        return
    found = outputs(language, function, x, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_onnx_gives_nan_where_a_loop_is_too_long(tmp_path):
    x, expected = inputs_and_outputs(long_loop)
    found = outputs("onnx", long_loop, x, tmp_path)
    is_short = expected[:, 0] <= 64
    assert is_short.any()
    assert not is_short.all()
    np.testing.assert_array_equal(found[is_short], expected[is_short])
    assert np.isnan(found[~is_short]).all()
