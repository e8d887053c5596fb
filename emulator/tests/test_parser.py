"""Text to kernels: what NVVM writes, inline assembly, and errors in the text."""

import numpy as np
import pytest

from emulator.ptx import EmulatedMemory, Module
from emulator.ptx.errors import LaunchError, PTXSyntaxError
from emulator.ptx.parser import parse
from emulator.tests.template import kernel, run

A = np.arange(32, dtype=np.uint32)


def test_inline_assembly_has_names_of_its_own():
    body = """mov.u32 %d0, %a0;
        // begin inline asm
        { .reg .b16 l, h; .reg .b32 %r1; mov.b32 {l, h}, %d0;
          mov.b32 %r1, {h, l}; mov.u32 %d0, %r1; }
        // end inline asm
        mov.u32 %r1, 5;
        {.reg .pred p; setp.gt.u32 p, %a0, 10; @p bra inner; mov.u32 %d0, %r1; inner: }
        {.reg .pred p; setp.lt.u32 p, %a0, 20; @p bra inner; mov.u32 %d0, 9; inner: }"""
    result = run(body, [A], ["u4"])
    wanted = np.where(A <= 10, 5, np.where(A < 20, A << 16, 9))
    np.testing.assert_array_equal(result, wanted)


def test_comments_directives_and_numbers():
    body = """/* a comment
        of two lines */ mov.u32 %d0, 0x10; // another
        .pragma "nounroll";
        .loc 1 5 3
        add.u32 %d0, %d0, 4U;
        add.s32 %d0, %d0, -0x4;
        mov.f32 %f1, 0f3F800000;
        cvt.rzi.u32.f32 %r1, %f1;
        add.u32 %d0, %d0, %r1;"""
    assert (run(body, [A], ["u4"]) == 17).all()


def test_kernels_parameters_and_limits():
    text = """.version 9.0
.target sm_90a, debug
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.global .align 1 .b8 name[3] = {97, 98, 0};
.func (.param .b32 result) helper(.param .b32 x)
{
  .reg .b32 %r<3>;
  { ld.param.b32 %r1, [x]; }
  ret;
}
.weak .entry first(.param .u64 .ptr .global .align 4 a, .param .align 8 .b8 b[12], .param .f32 c)
.maxntid 128, 1, 1
.minnctapersm 2
{ ret; }
.visible .entry second()
{ ret; }
"""
    kernels, variables, target = parse(text)
    assert list(kernels) == ["first", "second"]
    assert target == "sm_90a"
    assert variables["dynamic"].n_bytes == 0
    parameters = [(p.type, p.n_bytes, p.alignment) for p in kernels["first"].parameters]
    assert parameters == [("u64", 8, 8), ("b8", 12, 8), ("f32", 4, 4)]
    assert kernels["first"].limits[".maxntid"] == [128, 1, 1]
    module = Module(text, EmulatedMemory(1 << 24))
    module.launch("first", 1, 128, [1, bytes(12), 2.5])
    module.launch("first", 1, 128, bytes(24))
    with pytest.raises(LaunchError, match="at most 128 threads"):
        module.launch("first", 1, 129, bytes(24))
    with pytest.raises(LaunchError, match="23 parameter bytes, 24 needed"):
        module.launch("first", 1, 1, bytes(23))
    with pytest.raises(LaunchError, match="2 arguments for 3"):
        module.launch("first", 1, 1, [1, 2])
    with pytest.raises(LaunchError, match="no kernel 'third'; there are first, second"):
        module.launch("third", 1, 1)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("mov.u32 %d0 %a0;", "cannot read the operand '%d0 %a0'"),
        ("mov.u32 %d0, ;", "cannot read the operand ''"),
        ("@%a0x bra done;", "expected a predicate register"),
        ("bra nowhere;", "unknown label"),
        (".reg .b13 x;", "registers of type .b13"),
        ("mov.u32 %d0, [%rd1;", r"cannot read the operand '\[%rd1'"),
        (".local .align 4 x[4];", "expected a variable"),
        ("= 4;", "expected an instruction"),
    ],
)
def test_syntax_errors_name_their_line(statement, message):
    text = kernel(statement, ["u4"], ["u4"])
    with pytest.raises(PTXSyntaxError, match=message) as error:
        parse(text)
    assert error.value.line == text.split("\n").index("  " + statement) + 1


def test_an_unfinished_kernel():
    with pytest.raises(PTXSyntaxError, match="unexpected end"):
        parse(".entry k()\n{\n  ret;\n")


def test_dynamic_shared_memory_follows_static():
    body = """.shared .align 4 .b8 own[20];
        st.shared.u32 [own+16], 1;
        mov.u32 %r1, dynamic;
        mad.lo.u32 %r2, %t, 4, %r1;
        st.shared.u32 [%r2], %a0;
        ld.shared.u32 %d0, [%r2];
        sub.u32 %d0, %r1, 0;"""
    text = kernel(body, ["u4"], ["u4"])
    text = text.replace(".visible", ".extern .shared .align 32 .b8 dynamic[];\n.visible")
    module = Module(text, EmulatedMemory(1 << 24))
    a, d = module.memory.allocate(128), module.memory.allocate(128)
    module.launch("test", 1, 32, [a, d], shared_bytes=128)
    assert (module.memory.view(d, np.uint32, 32) == 32).all()
    with pytest.raises(LaunchError, match=r"32 \+ 300000 bytes of shared memory"):
        module.launch("test", 1, 32, [a, d], shared_bytes=300_000)


def test_launch_dimensions():
    text = kernel("mov.u32 %d0, %nctaid.y;", [], ["u4"])
    module = Module(text, EmulatedMemory(1 << 24))
    d = module.memory.allocate(4)
    module.launch("test", (1, 3), (1, 1, 1), [d])
    assert module.memory.view(d, np.uint32, 1)[0] == 3
    for grid, block in ((0, 1), (1, 1025), (1, (1, 1, 65)), ((1, 70_000), 1), ((1, 1, 1, 1), 1)):
        with pytest.raises(LaunchError):
            module.launch("test", grid, block, [d])
