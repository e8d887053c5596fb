"""Arrays in and out: whatever holds real numbers comes in, and what does not gets a clear error."""

import functools

import models
import numpy as np
import pytest
from laws import compiles_nothing


@functools.cache
def network():
    return models.create("smooth").network  # 3 -> 2


class OnlyDLPack:
    """What another library's array looks like to NumPy."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnGPU:
    """An array that says it lies on a GPU."""

    __cuda_array_interface__ = {  # noqa: RUF012 (as the protocol has it)
        "shape": (4, 3),
        "typestr": "<f4",
        "data": (4096, False),
        "version": 3,
    }


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = raw.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


CONVERSIONS = {
    "float64": lambda x: x.astype(np.float64),
    "big endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "some columns": lambda x: np.concatenate([x, x], axis=1)[:, : x.shape[1]],
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": read_only,
    "unaligned": unaligned,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "DLPack": OnlyDLPack,
    "DLPack float64": lambda x: OnlyDLPack(x.astype(np.float64)),
    "DLPack transposed": lambda x: OnlyDLPack(np.ascontiguousarray(x.T).T),
    "lists": lambda x: x.tolist(),
    "memoryview": memoryview,
    "subclass": lambda x: x.view(np.recarray),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_inputs_of_any_kind_give_the_same_outputs(name):
    x = np.random.default_rng(0).random((37, 3), np.float32)
    expected = network()(x)
    converted = CONVERSIONS[name](x)
    with compiles_nothing():
        y = network()(converted)
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert y.flags.writeable
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_other_dtypes_are_converted(dtype):
    x = np.random.default_rng(0).integers(0, 2, (37, 3)).astype(dtype)
    np.testing.assert_array_equal(network()(x), network()(x.astype(np.float32)))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_targets_of_any_kind_give_the_same_step(name):
    x, targets = models.batch_of("hash", 37)
    pdf = 0.5 + np.random.default_rng(0).random((37, 3), np.float32)
    first, second = (models.create("hash") for _ in range(2))
    convert = CONVERSIONS[name]
    losses = [
        first.trainer.training_step(x, targets, pdf, dl_dinput=np.empty_like(x)),
        second.trainer.training_step(
            convert(x), convert(targets), convert(pdf), dl_dinput=np.empty_like(x)
        ),
    ]
    assert float(losses[0]) == float(losses[1])
    np.testing.assert_array_equal(first.network.params, second.network.params)


def test_arguments_are_not_changed():
    model = models.create("hash")
    x, targets = models.batch_of("hash", 50)
    pdf = np.full_like(targets, 2)
    copies = [array.copy() for array in (x, targets, pdf)]
    model.trainer.training_step(x, targets, pdf, dl_dinput=np.empty_like(x))
    model.network(x)
    for array, copy in zip((x, targets, pdf), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (), (4, 2), (4, 4), (0,), (0, 2), (3, 0)])
def test_a_wrong_shape_says_what_is_expected(shape):
    with pytest.raises(ValueError, match=r"inputs.*3\]"):
        network()(np.zeros(shape))


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((4, 3), np.complex64),
        np.array([["a", "b", "c"]]),
        np.array([[None, 1, 2]]),
        np.zeros((4, 3), "datetime64[s]"),
        np.zeros(4, [("x", float), ("y", float), ("z", float)]),
        "text",
        None,
        object(),
        {"x": 1},
        [[1, 2, 3], [4, 5]],
        OnGPU(),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_what_is_no_array_of_real_numbers_is_an_error(value):
    with pytest.raises((TypeError, ValueError), match="inputs"):
        network()(value)


def test_an_array_on_a_gpu_says_what_to_do():
    with pytest.raises(TypeError, match="copy it to the host"):
        network()(OnGPU())


@pytest.mark.parametrize("argument", ["targets", "pdf", "external_dl_dy"])
@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (4,), (4, 2, 1), (1, 2)])
def test_batches_have_to_agree(argument, shape):
    model = models.create("smooth")
    before = model.network.params.copy()
    arrays = {"targets": np.zeros((4, 2)), argument: np.zeros(shape)}
    with pytest.raises(ValueError, match=argument):
        model.trainer.training_step(np.zeros((4, 3)), **arrays)
    np.testing.assert_array_equal(model.network.params, before)
    assert model.trainer.n_steps == 0


@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (4,)])
def test_backward_checks_the_gradient(shape):
    _, context = network().forward(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="dl_dy"):
        network().backward(context, np.zeros(shape))


@pytest.mark.parametrize("size", [0, 1, -1])
def test_params_have_to_have_the_right_size(size):
    params = np.zeros(network().n_params + size if size else 0)
    with pytest.raises(ValueError, match=f"params.*{network().n_params}"):
        network()(np.zeros((4, 3)), params=params)


def test_params_come_from_any_library():
    x = np.random.default_rng(0).random((9, 3), np.float32)
    params = np.asarray(network().params, np.float64) * 0.5
    expected = network()(x, params=params)
    np.testing.assert_array_equal(network()(x, params=OnlyDLPack(params)), expected)
    np.testing.assert_array_equal(network()(x, params=np.repeat(params, 2)[::2]), expected)
