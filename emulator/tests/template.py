"""A PTX kernel around a few instructions, for tests: one element of each array per thread."""

import numpy as np

from emulator.ptx.counters import Counters
from emulator.ptx.memory import EmulatedMemory
from emulator.ptx.module import Module

REGISTERS = {"u1": "b16", "u2": "b16", "u4": "b32", "u8": "b64", "f4": "f32", "f8": "f64"}
STORAGE = {"i1": "u1", "i2": "u2", "i4": "u4", "i8": "u8", "f2": "u2", "b1": "u1"}


def storage(dtype):
    short = np.dtype(dtype).str[1:]
    return STORAGE.get(short, short)


def kernel(body, inputs, outputs, shared_bytes=0, target="sm_90"):
    """PTX text: `%a0`, `%a1`, ... hold the inputs, and what is in `%d0`, ... is stored.

    Free for the body: `%p<9>`, `%h<40>` (16 bits), `%r<90>`, `%rd<20>`, `%f<40>`, `%fd<9>`; `%t`
    is the thread in its block and `%i` the thread in the launch, `cells` global memory and `data`
    shared memory.
    """
    arrays = [*(("a", k, dtype) for k, dtype in enumerate(inputs))]
    arrays += [("d", k, dtype) for k, dtype in enumerate(outputs)]
    parameters = ",\n".join(f"  .param .u64 {name}{k}" for name, k, _ in arrays)
    lines = [".version 8.6", f".target {target}", ".address_size 64"]
    lines.append(".global .align 8 .b8 cells[64];")
    if shared_bytes:
        lines.append(f".shared .align 16 .b8 data[{shared_bytes}];")
    lines += [f".visible .entry test(\n{parameters}\n)\n{{", "  .reg .pred %p<9>;"]
    lines += ["  .reg .b16 %h<40>;", "  .reg .b32 %r<90>;", "  .reg .b64 %rd<20>;"]
    lines += ["  .reg .f32 %f<40>;", "  .reg .f64 %fd<9>;", "  .reg .b32 %t, %n, %i;"]
    for name, k, dtype in arrays:
        lines += [f"  .reg .{REGISTERS[storage(dtype)]} %{name}{k};", f"  .reg .b64 %at_{name}{k};"]
    lines += ["  mov.u32 %t, %tid.x;", "  mov.u32 %n, %ntid.x;", "  mov.u32 %i, %ctaid.x;"]
    lines += ["  mad.lo.s32 %i, %i, %n, %t;"]
    for name, k, dtype in arrays:
        address = f"%at_{name}{k}"
        lines.append(f"  ld.param.u64 {address}, [{name}{k}];")
        size = np.dtype(dtype).itemsize
        lines.append(f"  mad.wide.u32 {address}, %i, {size}, {address};")
        if name == "a":
            lines.append(f"  ld.global.{type_of(dtype)} %{name}{k}, [{address}];")
    lines += ["  " + line.strip() for line in body.strip().split("\n")]
    for name, k, dtype in arrays:
        if name == "d":
            lines.append(f"  st.global.{type_of(dtype)} [%at_{name}{k}], %{name}{k};")
    return "\n".join([*lines, "  ret;", "}", ""])


def type_of(dtype):
    short = storage(dtype)
    return f"{'f' if short[0] == 'f' else 'u'}{8 * int(short[1:])}"


def line_of(body, inputs, outputs, number, **options):
    """The line in the whole text of line `number`, from 0, of the body."""
    text = kernel(body, inputs, outputs, **options)
    first = body.strip().split("\n")[0].strip()
    return text.split("\n").index("  " + first) + 1 + number


def run(
    body,
    inputs,
    outputs,
    block=None,
    grid=1,
    shared_bytes=0,
    counts=False,
    target="sm_90",
    **options,
):
    """Run `body` on one thread per element; returns the outputs, and Counters if wanted."""
    inputs = [np.ascontiguousarray(array) for array in inputs]
    n = inputs[0].shape[0] if inputs else grid * block
    block = block or -(-n // grid)
    memory = EmulatedMemory(1 << 26)
    text = kernel(body, [array.dtype for array in inputs], outputs, shared_bytes, target)
    module = Module(text, memory)
    addresses = []
    for array in inputs:
        addresses.append(memory.allocate(array.nbytes))
        memory.view(addresses[-1], array.dtype, n)[:] = array
    addresses += [memory.allocate(n * np.dtype(dtype).itemsize) for dtype in outputs]
    counters = Counters() if counts else None
    module.launch("test", grid, block, addresses, counters=counters, **options)
    results = [
        memory.view(address, dtype, n).copy()
        for address, dtype in zip(addresses[len(inputs) :], outputs, strict=True)
    ]
    results = results[0] if len(results) == 1 else results
    return (results, counters) if counts else results
