"""wgmma. Fragment and matrix layouts are those of the PTX ISA, "Asynchronous Warpgroup Level Matrix
Multiply-Accumulate Instructions", written out per lane and element; a GPU has confirmed them."""

import numpy as np
import pytest

from emulator.ptx.errors import (
    DivergentCollective,
    LaunchError,
    MemoryFault,
    Race,
    UnsupportedInstruction,
)
from emulator.tests.exact import to_bits
from emulator.tests.template import run

RNG = np.random.default_rng(0)
N_THREADS, PIECE = 128, 16
FENCE = "fence.proxy.async.shared::cta;"
OPEN, CLOSE = "wgmma.fence.sync.aligned;", "wgmma.commit_group.sync.aligned;"
WAIT = "wgmma.wait_group.sync.aligned 0;"


def numbers(*shape):
    return RNG.integers(-7, 8, shape) / 4


def lay_out(image, matrix, kind, transposed, start, leading, stride):
    """Write [extent, depth] 16-bit numbers in 8x8 matrices without a swizzle."""
    bits = to_bits(matrix, kind)
    for j, k in np.ndindex(*matrix.shape):
        row, column = (k, j) if transposed else (j, k)
        place = start + k // 8 * leading + j // 8 * stride + row % 8 * PIECE + column % 8 * 2
        image[place // 2] = bits[j, k]


def descriptor(start, leading, stride):
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32


def a_registers(a, kind):
    """Registers [4, 128] of a warpgroup that hold A [64, 16]."""
    bits = to_bits(a, kind).astype(np.uint32)
    words = np.empty((4, N_THREADS), np.uint32)
    for t in range(N_THREADS):
        row, column = 16 * (t // 32) + t % 32 // 4, 2 * (t % 4)
        for e in range(4):
            r, c = row + 8 * (e & 1), column + 8 * (e >> 1)
            words[e, t] = bits[r, c] | bits[r, c + 1] << 16
    return words


def d_place(t, i):
    return 16 * (t // 32) + t % 32 // 4 + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (t % 4) + i % 2


def product(width, kind="f16", result="f32", a="{%a0, %a1, %a2, %a3}", tail="1, 1, 1, 0"):
    n_sums = width // (2 if result == "f32" else 4)
    sums = ", ".join(f"%d{k}" for k in range(n_sums))
    shape = f"m64n{width}k16.{result}.{kind}.{kind}"
    return f"wgmma.mma_async.sync.aligned.{shape} {{{sums}}}, {a}, %rd1, {tail};"


def fill(n_words, first):
    """Stores of the image of shared memory: words of the inputs from number `first` on."""
    lines = ["mov.u32 %r1, data;", "and.b32 %r2, %t, 127;", "mad.lo.u32 %r2, %r2, 16, %r1;"]
    for j in range(n_words // 4):
        words = ", ".join(f"%a{first + 4 * j + k}" for k in range(4))
        lines.append(f"st.shared.v4.b32 [%r2+{2048 * j}], {{{words}}};")
    return lines


def body_of(*instructions, n_sums, value=0, b=0, a=0, n_words=8, first=4, ready=(FENCE,)):
    register = f"mov.b32 %d{{}}, {value};"
    return "\n".join(
        [
            *fill(n_words, first),
            *ready,
            "bar.sync 0;",
            f"mov.b64 %rd1, {b};",
            f"mov.b64 %rd2, {a};",
            *(register.format(k) for k in range(n_sums)),
            *instructions,
        ]
    )


def launch(body, registers, image, outputs, **options):
    words = image.view(np.uint32).reshape(-1, N_THREADS, 4)
    words = [words[j, :, k] for j in range(words.shape[0]) for k in range(4)]
    n_groups = registers.shape[1] // N_THREADS
    arrays = [*registers, *(np.tile(word, n_groups) for word in words)]
    options = {"racecheck": "shared", "target": "sm_90a", "shared_bytes": image.nbytes, **options}
    return run(body, arrays, outputs, **options)


FORMS = [  # width, kind, result, A in shared memory, transposed A and B
    (64, "f16", "f32", False, 0, 0),
    (64, "f16", "f32", False, 0, 1),
    (8, "bf16", "f32", False, 0, 0),
    (24, "f16", "f16", False, 0, 1),
    (32, "f16", "f32", True, 0, 0),
    (40, "bf16", "f32", True, 1, 1),
    (16, "f16", "f16", True, 1, 0),
    (128, "f16", "f32", True, 0, 1),
]


@pytest.mark.parametrize(("width", "kind", "result", "in_shared", "trans_a", "trans_b"), FORMS)
def test_products(width, kind, result, in_shared, trans_a, trans_b):
    """Products of either sign by two warpgroups, whose first is added to the sums or not."""
    a, b = numbers(64, 16), numbers(width, 16)
    image = np.full(8192, 0xFFFF, np.uint16)  # NaN around the matrices
    layout_b = (16, 16 * (width + 1), 128) if not trans_b else (16, 128, 272)
    layout_a = (8192, 16 * 65, 128) if not trans_a else (8192, 128, 272)
    lay_out(image, b, kind, trans_b, *layout_b)
    lay_out(image, a, kind, trans_a, *layout_a)
    registers = np.tile(a_registers(a, kind), 2)
    n_sums = width // (2 if result == "f32" else 4)
    one = {"f32": "0f3F800000", "f16": 0x3C003C00}[result]
    form = {"width": width, "kind": kind, "result": result}
    flags = f"{trans_a}, {trans_b}" if in_shared else f"{trans_b}"
    form["a"] = "%rd2" if in_shared else "{%a0, %a1, %a2, %a3}"
    instructions = [
        *("setp.eq.u32 %p1, %t, %t;", OPEN),
        product(**form, tail=f"SCALE, 1, -1, {flags}"),
        product(**form, tail=f"%p1, -1, -1, {flags}"),
        product(**form, tail=f"1, 1, 1, {flags}"),
        *(CLOSE, WAIT),
    ]
    for adds in (0, 1):
        body = body_of(
            *(line.replace("SCALE", str(adds)) for line in instructions),
            n_sums=n_sums,
            value=one,
            n_words=32,
            a=descriptor(*layout_a),
            b=descriptor(*layout_b),
        )
        outputs = ["f4" if result == "f32" else "u4"] * n_sums
        found = np.array(launch(body, registers, image, outputs, block=256))
        if result == "f16":
            pairs = np.ascontiguousarray(found.T).view(np.float16).reshape(256, n_sums, 2)
            found = pairs.reshape(256, -1).T
        exact = a @ b.T + adds
        wanted = [[exact[d_place(t % 128, i)] for t in range(256)] for i in range(width // 2)]
        np.testing.assert_array_equal(found, wanted)


# What is wrong with a launch

A, B = numbers(64, 16), numbers(8, 16)
GOOD = descriptor(0, 256, 128)  # B of 8 columns, at 0


def eight_columns(*instructions, ready=(FENCE,), b=GOOD, n_threads=128, **options):
    """Launch with B [8, 16] in shared memory; returns D."""
    image = np.zeros(2048, np.uint16)
    lay_out(image, B, "f16", 0, 0, 256, 128)
    registers = np.tile(a_registers(A, "f16"), -(-n_threads // 128))
    body = body_of(*instructions, n_sums=4, b=b, ready=ready)
    words = image.view(np.uint32).reshape(2, 128, 4)
    words = [np.tile(words[j, :, k], 2) for j in range(2) for k in range(4)]
    arrays = [array[:n_threads] for array in [*registers, *words]]
    options = {"racecheck": "shared", "target": "sm_90a", "shared_bytes": 4096, **options}
    return run(body, arrays, ["f4"] * 4, **options)


PRODUCT = product(8)


def test_launch_that_is_right():
    found = eight_columns(OPEN, PRODUCT, CLOSE, WAIT)
    exact = A @ B.T
    for i in range(4):
        assert found[i].tolist() == [exact[d_place(t, i)] for t in range(128)]


@pytest.mark.parametrize(
    ("instructions", "options", "error", "message"),
    [
        ([OPEN, PRODUCT], {"b": GOOD | 1 << 62}, UnsupportedInstruction, "swizzle in the descr"),
        ([OPEN, PRODUCT], {"b": GOOD | 1 << 14}, UnsupportedInstruction, "outside of its fields"),
        ([OPEN, PRODUCT], {"b": GOOD | 1 << 49}, UnsupportedInstruction, "outside of its fields"),
        ([OPEN, PRODUCT], {"b": GOOD + 0xF8}, MemoryFault, "shared memory has 4096 bytes"),
        (["cvt.u64.u32 %rd1, %t;", OPEN, PRODUCT], {}, DivergentCollective, "descriptor of B diff"),
        ([OPEN, PRODUCT], {"n_threads": 96}, DivergentCollective, r"only warps \[0, 1, 2\] are"),
        ([OPEN, PRODUCT], {"n_threads": 160}, DivergentCollective, r"only warps \[0\] are here"),
        ([OPEN, PRODUCT], {"target": "sm_90"}, LaunchError, "of sm_90a, not of 'sm_90'"),
        ([PRODUCT], {}, Race, r"no wgmma\.fence orders the registers"),
        ([OPEN, PRODUCT], {"ready": ()}, Race, r"has not executed fence\.proxy\.async"),
        (
            [f"st.shared.b32 [data], 0;\n{FENCE}\nbar.warp.sync -1;", OPEN, PRODUCT],
            *({}, Race, "load by a warpgroup to byte 0 of shared memory, and store by"),
        ),
        (
            [OPEN, PRODUCT, CLOSE, WAIT, "bar.warp.sync -1;", "st.shared.b32 [data], 0;"],
            *({}, Race, "to byte 0 of shared memory, and load by a warpgroup"),
        ),
        (
            ["setp.lt.u32 %p1, %t, 32;", OPEN, "@%p1 " + PRODUCT],
            *({}, DivergentCollective, r"all 4 warps of a warpgroup must execute it together"),
        ),
        (
            ["setp.lt.u32 %p1, %t, 16;", OPEN, "@%p1 " + PRODUCT],
            *({}, DivergentCollective, "all 32 lanes must execute it together"),
        ),
        (
            ["setp.lt.u32 %p1, %t, 32;", OPEN, product(8, tail="%p1, 1, 1, 0")],
            *({}, DivergentCollective, "the scale-d differs between the lanes"),
        ),
    ],
)
def test_launches_that_are_wrong(instructions, options, error, message):
    with pytest.raises(error, match=message):
        eight_columns(*instructions, **options)


def test_initialised():
    with pytest.raises(MemoryFault, match="which nothing wrote"):
        eight_columns(OPEN, PRODUCT, b=descriptor(4096, 256, 128), shared_bytes=8192)


def test_copies_need_a_fence_once_they_have_landed():
    copy = "cp.async.ca.shared.global [data], [%at_a0], 4;"
    for order in ([FENCE, "cp.async.wait_all;"], ["cp.async.wait_all;", FENCE]):
        ready = [FENCE, "bar.sync 0;", "setp.eq.u32 %p1, %t, 0;", f"@%p1 {copy}", *order]
        if order[0] == FENCE:
            with pytest.raises(Race, match="has not executed"):
                eight_columns(OPEN, PRODUCT, ready=ready)
        else:
            eight_columns(OPEN, PRODUCT, ready=ready)


@pytest.mark.parametrize(
    "instruction",
    [
        product(8).replace("n8k16", "n12k16"),
        product(8).replace("n8k16", "n8k8"),
        product(8).replace("f32.f16.f16", "f32.f16.bf16"),
        product(8).replace("f32.f16.f16", "f16.bf16.bf16"),
        product(8, tail="1, 2, 1, 0"),
        product(8, tail="1, 1, 1, 2"),
        product(8, tail="1, 1, 1"),
        product(8, a="{%a0, %a1}"),
        product(16).replace("n16k16", "n8k16"),
        "wgmma.prefetch.sync.aligned;",
    ],
)
def test_unsupported_forms(instruction):
    body = body_of(OPEN, instruction, n_sums=8, b=GOOD)
    registers = a_registers(A, "f16")
    with pytest.raises(UnsupportedInstruction):
        launch(body, registers, np.zeros(2048, np.uint16), ["f4"] * 8)


def test_counts():
    """Counts as those of the same products by m16n8k16."""
    _, counters = eight_columns(OPEN, PRODUCT, product(8), CLOSE, WAIT, counts=True)
    assert counters.mma == 8
    assert counters.instructions["wgmma.wait_group.sync.aligned"] == 4
