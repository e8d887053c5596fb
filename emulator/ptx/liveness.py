"""Liveness: registers that hold a value that is still needed when a block ends."""

from emulator.ptx.syntax import Memory, Negated, Pair, Register, Vector

WITHOUT_RESULT = {
    *("st", "red", "cp", "bar", "barrier", "stmatrix", "bra", "brx", "ret", "exit", "trap"),
    *("brkpt", "membar", "fence", "prefetch", "prefetchu", "nanosleep", "discard", "pmevent"),
}


def leaves(operand):
    if isinstance(operand, Vector):
        for part in operand.parts:
            yield from leaves(part)
    elif isinstance(operand, Pair):
        yield from leaves(operand.first)
        yield from leaves(operand.second)
    elif isinstance(operand, Memory):
        yield from leaves(operand.base)
    elif isinstance(operand, Negated):
        yield from leaves(operand.predicate)
    else:
        yield operand


def registers_of(instruction):
    """Slots of registers written, and read."""
    first_read = 0 if instruction.name in WITHOUT_RESULT and not instruction.has("red") else 1
    slots = [
        [part.slot for part in leaves(operand) if isinstance(part, Register)]
        for operand in instruction.operands
    ]
    written = [slot for operand in slots[:first_read] for slot in operand]
    read = [slot for operand in slots[first_read:] for slot in operand]
    if instruction.name == "wgmma":  # the sums are added to
        read += written
    if instruction.predicate is not None:  # lanes that do not execute keep the old value
        read += [instruction.predicate[0].slot, *written]
    return written, read


def find_live_registers(blocks):
    before, defined = {}, {}
    for block in blocks:
        needed = written_so_far = 0
        for instruction in block.instructions:
            written, read = registers_of(instruction)
            instruction.slots_written, instruction.slots_read = written, read
            for slot in read:
                needed |= (1 << slot) & ~written_so_far
            for slot in written:
                written_so_far |= 1 << slot
        if block.selector is not None:
            needed |= (1 << block.selector.slot) & ~written_so_far
        before[block], defined[block] = needed, written_so_far
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            block.live_out = 0
            for target in block.successors():
                block.live_out |= target.live_in
            live_in = before[block] | block.live_out & ~defined[block]
            changed |= live_in != block.live_in
            block.live_in = live_in
