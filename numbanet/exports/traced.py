"""Program of a model: encoding, matrices and activations of one sample."""

from numba.core import types

from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.exports.arithmetic import constant
from numbanet.exports.program import I64, Array, Program, without_unused
from numbanet.exports.tracing import Tracer
from numbanet.exports.translations import TRANSLATIONS
from numbanet.exports.views import View
from numbanet.networks.per_sample import layers

VECTOR = types.Array(types.float32, 1, "C")


def view(array: Array | None, first: int, length: int) -> View:
    return View(array, constant(I64, first), constant(I64, length))


def program_of(model, rounds: bool = False) -> Program:
    """Program that computes `model.inference` for one sample.

    Args:
        model: a NetworkWithInputEncoding or an Encoding.
        rounds: for languages whose compilers do not add as it is written, see Arithmetic; outputs
            are then not NaN where an input is not finite.

    Raises:
        ExportError: a component cannot be translated.
    """
    tracer = Tracer(TRANSLATIONS, rounds=rounds)
    inputs, outputs = Array("x", model.n_input_dims), Array("y", model.n_output_dims)
    for array in (inputs, outputs):
        tracer.contents[array] = {}
    tracer.arrays.append(outputs)
    x, y = view(inputs, 0, inputs.length), view(outputs, 0, outputs.length)
    network = getattr(model, "network", None)
    n_weights = 0 if network is None else network.n_params
    entries = view(None, n_weights, model.encoding.n_params)
    if network is None:
        features = y
        encoding = model.encoding.padded(model.n_output_dims)
    else:
        encoding = model.encoding.padded(network.n_input_dims)
        features = tracer.new_array(network.n_input_dims)
    tracer.call(encoding.forward.py_func, (VECTOR,) * 3, (x, entries, features))
    if not rounds:
        zero = tracer.call(zero_or_nan(encoding.n_dims).py_func, (VECTOR,), (x,))
        part = features if network is None else features._replace(length=constant(I64, 1))
        tracer.call(spoil.py_func, (types.float32, VECTOR), (zero, part))
    if network is not None:
        widths = (*network.widths[1:-1], None)
        for apply, width in zip(layers(network), widths, strict=True):
            result = y if width is None else tracer.new_array(width)
            weights = view(None, 0, n_weights)
            tracer.call(apply.py_func, (VECTOR,) * 3, (weights, features, result))
            features = result
    tracer.store_contents(outputs)
    body = without_unused([*tracer.declared, *tracer.block])
    stored = [array for array in tracer.arrays if array.is_stored]
    return Program(inputs.length, outputs.length, stored, body)
