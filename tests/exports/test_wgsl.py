"""WGSL modules, run through wgpu; a Vulkan driver in software does."""

import functools
import os

import exported_models as models
import numpy as np
import pytest

from numbanet.exports.packing import packed
from numbanet.exports.wgsl import GROUP
from numbanet.exports.writing import files_of


@functools.cache
def device():
    wgpu = pytest.importorskip("wgpu", reason="needs the package wgpu")
    os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")
    try:
        return wgpu, wgpu.gpu.request_adapter_sync().request_device_sync()
    except RuntimeError as error:
        return pytest.skip(f"needs a Vulkan driver: {error}")


def outputs(example, x, precision="float32"):
    wgpu, gpu = device()
    numbers = packed(example.params, precision)
    code = files_of("wgsl", example, numbers, "model", "a model", True, "auto")["program"].decode()
    usage = wgpu.BufferUsage
    n_bytes = x.shape[0] * example.n_output_dims * 4
    result = gpu.create_buffer(size=max(n_bytes, 4), usage=usage.STORAGE | usage.COPY_SRC)
    given = {0: numbers.values, 2: x} | ({} if numbers.scales is None else {1: numbers.scales})
    buffers = {3: result} | {
        place: gpu.create_buffer_with_data(data=words(array), usage=usage.STORAGE)
        for place, array in given.items()
    }
    kinds = {place: "storage" if place == 3 else "read-only-storage" for place in buffers}
    layout = gpu.create_bind_group_layout(
        entries=[
            {"binding": place, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
            for place, kind in kinds.items()
        ]
    )
    pipeline = gpu.create_compute_pipeline(
        layout=gpu.create_pipeline_layout(bind_group_layouts=[layout]),
        compute={"module": gpu.create_shader_module(code=code), "entry_point": "model_main"},
    )
    entries = [
        {"binding": place, "resource": {"buffer": buffer, "offset": 0, "size": buffer.size}}
        for place, buffer in buffers.items()
    ]
    encoder = gpu.create_command_encoder()
    work = encoder.begin_compute_pass()
    work.set_pipeline(pipeline)
    work.set_bind_group(0, gpu.create_bind_group(layout=layout, entries=entries))
    work.dispatch_workgroups(-(-x.shape[0] // GROUP))
    work.end()
    gpu.queue.submit([encoder.finish()])
    found = np.frombuffer(gpu.queue.read_buffer(result), np.float32)
    return found.reshape(x.shape[0], example.n_output_dims)


def words(array) -> bytes:
    data = array.tobytes()
    return data + bytes(-len(data) % 4) or bytes(4)


@pytest.mark.parametrize(("otype", "k"), models.ENCODINGS)
def test_every_encoding_agrees(otype, k):
    if models.encoding_example(otype, k)[0].n_output_dims == 0:
        pytest.skip("needs an output: the encoding has none")
    models.assert_encoding_agrees(outputs, otype, k, n=65)


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_agrees(activation):
    models.assert_activation_agrees(outputs, activation)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_models_agree_in_every_precision(precision):
    models.assert_model_agrees(outputs, precision, 130, n_neurons=32, n_hidden_layers=2)
