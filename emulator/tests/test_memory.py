"""Loads and stores in all spaces, asynchronous copies, and the heap."""

import itertools

import numpy as np
import pytest

from emulator.ptx import EmulatedMemory, Module
from emulator.ptx.errors import (
    Misaligned,
    OutOfBounds,
    OutOfMemory,
    UninitialisedRead,
    UseAfterFree,
)
from emulator.tests.template import kernel, line_of, run

N = np.arange(64, dtype=np.uint32)


@pytest.mark.parametrize("modifiers", ["", ".nc", ".volatile", ".L1::no_allocate", ".relaxed.gpu"])
def test_global_loads(modifiers):
    if modifiers in (".volatile", ".relaxed.gpu"):
        opcode = f"ld{modifiers}.global.u32"
    else:
        opcode = f"ld.global{modifiers}.u32"
    np.testing.assert_array_equal(run(f"{opcode} %d0, [%at_a0];", [N * 3], ["u4"]), N * 3)


def test_vectors():
    body = """shl.b32 %r1, %i, 4;
        cvt.u64.u32 %rd1, %r1;
        sub.u64 %rd2, %at_a0, %rd1;
        and.b32 %r2, %i, 15;
        mad.wide.u32 %rd2, %r2, 12, %at_a0;
        shl.b32 %r3, %i, 2;
        mul.wide.u32 %rd3, %r3, 1;
        sub.u64 %rd4, %at_a0, %rd3;
        mad.wide.u32 %rd5, %r2, 16, %rd4;
        ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd5];
        ld.global.v2.b32 {%r8, _}, [%rd5+8];
        ld.global.v4.u16 {%h1, %h2, %h3, %h4}, [%rd5];
        add.u32 %d0, %r4, %r5;
        add.u32 %d1, %r6, %r7;
        sub.u32 %d2, %r8, %r6;
        cvt.u32.u16 %d3, %h3;"""
    first, second, zero, low = run(body, [N], ["u4"] * 4)
    k = 4 * (N % 16)
    np.testing.assert_array_equal(first, 2 * k + 1)
    np.testing.assert_array_equal(second, 2 * k + 5)
    assert not zero.any()
    np.testing.assert_array_equal(low, k + 1)


def test_bytes_are_extended():
    body = """shl.b32 %r1, %t, 2;
        mov.u32 %r2, data;
        add.u32 %r1, %r1, %r2;
        st.shared.u32 [%r1], %a0;
        ld.shared.s8 %d0, [%r1];
        ld.shared.u8 %d1, [%r1+1];
        ld.shared.s16 %d2, [%r1+2];
        st.shared.u8 [%r1+3], %d0;
        ld.shared.u32 %d3, [%r1];"""
    a = np.array([0x12F480FF, 0x8001027F], np.uint32)
    signed, unsigned, half, patched = run(body, [a], ["i4", "u4", "i4", "u4"], shared_bytes=8)
    assert signed.tolist() == [-1, 127]
    assert unsigned.tolist() == [0x80, 2]
    assert half.tolist() == [0x12F4, 0x8001 - 65536]
    assert [hex(x) for x in patched.tolist()] == ["0xfff480ff", "0x7f01027f"]


def test_shared_memory_belongs_to_a_block():
    body = """mov.u32 %r1, data;
        shl.b32 %r2, %t, 2;
        add.u32 %r1, %r1, %r2;
        st.shared.u32 [%r1], %a0;
        bar.sync 0;
        xor.b32 %r2, %r2, 28;
        mov.u32 %r3, data;
        add.u32 %r3, %r3, %r2;
        ld.shared.u32 %d0, [%r3];"""
    result = run(body, [N], ["u4"], grid=8, shared_bytes=32)
    np.testing.assert_array_equal(result, N.reshape(8, 8)[:, ::-1].reshape(-1))


def test_generic_addresses_reach_every_space():
    body = """.local .align 8 .b8 stack[16];
        mov.u64 %rd1, stack;
        cvta.local.u64 %rd2, %rd1;
        mov.u64 %rd3, data;
        cvta.shared.u64 %rd4, %rd3;
        mad.wide.u32 %rd4, %t, 4, %rd4;
        st.u32 [%rd2+4], 1000;
        st.u32 [%rd4], 2000;
        rem.u32 %r1, %i, 3;
        setp.eq.u32 %p1, %r1, 0;
        setp.eq.u32 %p2, %r1, 1;
        add.u64 %rd2, %rd2, 4;
        selp.b64 %rd5, %rd2, %rd4, %p1;
        selp.b64 %rd5, %at_a0, %rd5, %p2;
        ld.u32 %d0, [%rd5];
        ld.local.u32 %r2, [%rd1+4];
        add.u32 %r3, %d0, 1;
        st.u32 [%rd5], %r3;
        ld.u32 %d1, [%rd5];
        add.u32 %d1, %d1, %r2;"""
    loaded, stored = run(body, [N], ["u4", "u4"], shared_bytes=256)
    wanted = np.choose(N % 3, [1000, N, 2000])
    np.testing.assert_array_equal(loaded, wanted)
    np.testing.assert_array_equal(stored, wanted + 1001)


def test_lanes_may_hit_different_allocations():
    body = """setp.lt.u32 %p1, %i, 40;
        selp.b64 %rd1, %at_a0, %at_a1, %p1;
        ld.global.u32 %d0, [%rd1];"""
    result = run(body, [N, N + 500], ["u4"])
    np.testing.assert_array_equal(result, np.where(N < 40, N, N + 500))


def test_the_last_lane_wins():
    body = "st.shared.u32 [data], %a0;\nbar.sync 0;\nld.shared.u32 %d0, [data];"
    result = run(body, [N], ["u4"], grid=2, shared_bytes=4)
    assert result.tolist() == [31] * 32 + [63] * 32


def test_predicated_store():
    body = """setp.gt.u32 %p1, %a0, 9;
        mov.u32 %d0, 5;
        @%p1 ld.global.u32 %d0, [%at_a0];
        @!%p1 mov.u32 %d0, 77;"""
    np.testing.assert_array_equal(run(body, [N], ["u4"]), np.where(N > 9, N, 77))


# asynchronous copies

COPY = """mov.u32 %r1, data;
    shl.b32 %r2, %t, 4;
    add.u32 %r1, %r1, %r2;
    mul.wide.u32 %rd1, %t, 4;
    sub.u64 %rd1, %at_a0, %rd1;
    and.b32 %r3, %t, 15;
    mad.wide.u32 %rd1, %r3, 16, %rd1;
    {copy}
    ld.shared.u32 %d0, [%r1+8];"""
WAIT = "cp.async.commit_group;\ncp.async.wait_group 0;"


@pytest.mark.parametrize("cache", ["ca", "cg"])
def test_asynchronous_copy(cache):
    copy = f"cp.async.{cache}.shared.global.L2::128B [%r1], [%rd1], 16;\n{WAIT}"
    result = run(COPY.format(copy=copy), [N], ["u4"], shared_bytes=1024)
    np.testing.assert_array_equal(result, N % 16 * 4 + 2)


def test_asynchronous_copy_of_nothing_writes_zeros():
    copy = f"""and.b32 %r3, %t, 1;
        shl.b32 %r3, %r3, 4;
        cp.async.cg.shared.global [%r1], [%rd1], 16, %r3;
        {WAIT}"""
    result = run(COPY.format(copy=copy), [N], ["u4"], shared_bytes=1024)
    np.testing.assert_array_equal(result, np.where(N % 2, N % 16 * 4 + 2, 0))


def test_asynchronous_copy_of_a_part_writes_zeros_for_the_rest():
    copy = f"""and.b32 %r3, %t, 15;
        cp.async.cg.shared.global [%r1], [%rd1], 16, %r3;
        {WAIT}"""
    result = run(COPY.format(copy=copy), [N], ["u4"], shared_bytes=1024)
    n_bytes = np.clip(N % 16, 8, 12) - 8  # of the word at 8
    np.testing.assert_array_equal(result, N % 16 * 4 + 2 & (1 << 8 * n_bytes) - 1)


def test_copied_data_lands_at_the_wait():
    body = """mov.u32 %r1, data;
        shl.b32 %r2, %t, 2;
        add.u32 %r1, %r1, %r2;
        st.shared.u32 [%r1], 7;
        cp.async.ca.shared.global [%r1], [%at_a0], 4;
        cp.async.commit_group;
        cp.async.ca.shared.global [%r1+256], [%at_a0], 4;
        cp.async.commit_group;
        ld.shared.u32 %d0, [%r1];
        cp.async.wait_group 1;
        ld.shared.u32 %d1, [%r1];
        cp.async.wait_all;
        ld.shared.u32 %d2, [%r1+256];"""
    early, late, last = run(body, [N], ["u4"] * 3, shared_bytes=512, initcheck=False)
    assert (early == 7).all()
    np.testing.assert_array_equal(late, N)
    np.testing.assert_array_equal(last, N)
    with pytest.raises(UninitialisedRead) as error:
        run(body, [N], ["u4"] * 3, shared_bytes=512)
    assert error.value.text == "ld.shared.u32 %d0, [%r1];"


# refused accesses


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("ld.global.u32 %d0, [%at_a0+4];", OutOfBounds, "thread (63,0,0)"),
        ("ld.global.u32 %d0, [%at_a0+-4];", OutOfBounds, "thread (0,0,0)"),
        ("ld.global.u32 %d0, [%at_a0+2];", Misaligned, "not a multiple of 4"),
        ("ld.global.v2.u32 {%d0, %r1}, [%at_a0];", Misaligned, "not a multiple of 8"),
        ("ld.global.u64 %rd1, [%at_a0+1048576];", OutOfBounds, "past the end"),
        ("ld.shared.u32 %d0, [data+16];", OutOfBounds, "16 bytes"),
        ("ld.shared.u32 %d0, [data+-4];", OutOfBounds, "address -0x4"),
        ("ld.shared.u16 %h1, [data+1];", Misaligned, "not a multiple of 2"),
        ("ld.shared.u32 %d0, [data];", UninitialisedRead, "byte 0"),
        ("mov.b64 %rd1, 0;\nst.global.u32 [%rd1], %a0;", OutOfBounds, "0x0"),
    ],
)
def test_faults_name_the_thread_and_the_line(body, error, message):
    with pytest.raises(error) as caught:
        run(body, [N], ["u4"], shared_bytes=16)
    assert message in str(caught.value)
    number = body.count("\n")
    assert caught.value.line == line_of(body, ["u4"], ["u4"], number, shared_bytes=16)
    assert caught.value.text == body.split("\n")[-1]


def test_unwritten_memory_is_nan():
    body = "ld.shared.f32 %d0, [data];"
    assert np.isnan(run(body, [N], ["f4"], shared_bytes=16, initcheck=False)).all()
    memory = EmulatedMemory(1 << 20)
    assert np.isnan(memory.view(memory.allocate(64), np.float16, 32)).all()


# the heap


def test_addresses_are_stable_and_apart():
    memory = EmulatedMemory(1 << 24)
    addresses = [memory.allocate(n) for n in (1, 100, 0, 4096)]
    assert all(address % 256 == 0 for address in addresses)
    assert all(b - a >= 4096 for a, b in itertools.pairwise(addresses))
    view = memory.view(addresses[1], np.float32, (5, 5))
    view[:] = 3
    memory.allocate(1 << 20)
    assert memory.view(addresses[1], np.float32, 25).sum() == 75
    assert np.shares_memory(view, memory.view(addresses[1] + 4, np.uint8, 4))


def test_views_are_checked():
    memory = EmulatedMemory(1 << 24)
    address = memory.allocate(100)
    with pytest.raises(OutOfBounds, match="crosses the end of 100 bytes"):
        memory.view(address, np.float32, 26)
    with pytest.raises(OutOfBounds, match="28 bytes past the end"):
        memory.view(address + 128, np.uint8, 1)
    memory.free(address)
    with pytest.raises(UseAfterFree, match="0 bytes into freed memory"):
        memory.view(address, np.uint8, 1)
    with pytest.raises(UseAfterFree):
        memory.free(address)
    with pytest.raises(OutOfBounds, match="nothing is allocated"):
        memory.view(4, np.uint8, 1)


def test_the_heap_is_finite_and_reused():
    memory = EmulatedMemory(1 << 20)
    kept = memory.allocate(1000)
    for _ in range(100):
        memory.free(memory.allocate(100_000))
    with pytest.raises(OutOfMemory, match="1000000 bytes wanted, 1000 of"):
        memory.allocate(1_000_000)
    memory.view(kept, np.uint8, 1000)


def test_use_after_free_in_a_kernel():
    memory = EmulatedMemory(1 << 20)
    module = Module(kernel("mov.u32 %d0, %a0;", ["u4"], ["u4"]), memory)
    a, d = memory.allocate(256), memory.allocate(256)
    memory.view(a, np.uint32, 64)[:] = N
    for _ in range(2):
        module.launch("test", 1, 64, [a, d])
    memory.free(a)
    with pytest.raises(UseAfterFree, match=r"block \(0,0,0\) thread \(0,0,0\)") as error:
        module.launch("test", 1, 64, [a, d])
    assert error.value.text.startswith("ld.global.u32 %a0")


def test_module_variables():
    text = kernel("ld.const.u32 %r1, [table+8];\nadd.u32 %d0, %a0, %r1;", ["u4"], ["u4"])
    variables = """.const .align 4 .b32 table[3] = {1, 2, 30};
.global .align 4 .f32 scale = 0f3F800000;
.global .align 8 .u64 pointer = generic(scale)+0;
.global .align 4 .b8 unset[8];
"""
    text = text.replace(".visible .entry", variables + ".visible .entry")
    module = Module(text, EmulatedMemory(1 << 24))
    memory = module.memory
    a, d = memory.allocate(256), memory.allocate(256)
    memory.view(a, np.uint32, 64)[:] = N
    module.launch("test", 1, 64, [a, d])
    np.testing.assert_array_equal(memory.view(d, np.uint32, 64), N + 30)
    assert memory.view(module.symbol("scale"), np.float32, 1)[0] == 1
    assert memory.view(module.symbol("pointer"), np.uint64, 1)[0] == module.symbol("scale")
    assert not memory.view(module.symbol("unset"), np.uint8, 8).any()


def test_modules_of_the_same_text_have_variables_of_their_own():
    body = """
        mov.u64 %rd2, cells;
        st.global.u32 [%rd2], %a0;
        mov.u32 %d0, %a0;
    """
    memory, text = EmulatedMemory(1 << 20), kernel(body, ["u4"], ["u4"])
    modules = [Module(text, memory) for _ in range(2)]
    for number, module in enumerate(modules):
        address = memory.allocate(8)
        memory.view(address, "u4", 1)[:] = 7 + number
        module.launch("test", 1, 1, [address, address + 4])
    cells = [memory.view(module.symbol("cells"), "u4", 1)[0] for module in modules]
    assert cells == [7, 8]


def test_finalizers_free_at_any_time():
    """The collector of cycles may run within any call, and a finalizer of an array then frees."""
    memory = EmulatedMemory()
    addresses = [memory.allocate(64) for _ in range(8)]
    others = iter(addresses[:-1])

    class Collecting(int):
        def __lt__(self, other):
            for address in itertools.islice(others, 3):
                memory.free(address)
            return int(self) < other

    last = Collecting(addresses[-1])
    assert memory.find(last).address == addresses[-1]
    with pytest.raises(UseAfterFree):
        memory.view(addresses[0], np.uint8, 1)
    memory.view(addresses[-1], np.uint8, 64)[:] = 1
