"""A kernel's instructions as basic blocks, in an order that lets diverged lanes meet again.

Blocks are numbered so that every branch but a loop's way back goes up, the blocks of a loop are
contiguous, and each loop goes back through one block, its last. Running the lowest block that has
lanes then joins lanes where their paths meet, and before the next iteration of a loop starts.
"""

from dataclasses import dataclass, field

from emulator.ptx.dtypes import DTYPES
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.liveness import find_live_registers, leaves
from emulator.ptx.syntax import Instruction, Label, Register, Symbol

SPACES = ("global", "shared")
# A predicate on one of these becomes a branch around it.
BRANCHED_AROUND = {
    *("ld", "st", "atom", "red", "cp", "bar", "barrier", "shfl", "vote", "match", "redux"),
    *("activemask", "mma", "ldmatrix", "stmatrix", "movmatrix", "trap", "brkpt"),
    *("wgmma", "fence"),
}


@dataclass(eq=False)
class Block:
    instructions: list = field(default_factory=list)
    issued: list = field(default_factory=list)  # opcodes, branches and returns included
    selector: Register | None = None  # which target, False and True for a predicate
    targets: list = field(default_factory=list)  # Block, or None for the end of the kernel
    barrier: Instruction | None = None  # lanes wait here before they go to the target
    number: int = -1
    live_in: int = 0  # bit sets of register slots
    live_out: int = 0

    def successors(self):
        return [target for target in self.targets if target is not None]

    def replace_target(self, old, new):
        self.targets = [new if target is old else target for target in self.targets]


class Program:
    """Kernel ready for code generation: blocks, and the layout of its variables."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.register_types = kernel.register_types
        entry = build(kernel.body)
        self.blocks = arrange(simplify(entry), entry)
        for number, block in enumerate(self.blocks):
            block.number = number
        find_live_registers(self.blocks)
        self.instructions = [i for block in self.blocks for i in block.instructions]
        self.parameter_offsets, self.parameter_bytes = lay_out(kernel.parameters)
        local = [v for v in kernel.variables if v.space == "local"]
        self.local_offsets, self.local_bytes = lay_out(local)
        shared = {v: None for v in kernel.variables if v.space == "shared"}
        self.uses_module_variables = False
        for instruction in self.instructions:
            for operand in instruction.operands:
                for part in leaves(operand):
                    if isinstance(part, Symbol):
                        self.uses_module_variables |= part.variable.space in ("global", "const")
                        if part.variable.space == "shared":
                            shared[part.variable] = None
        dynamic = [v for v in shared if v.n_bytes == 0]
        offsets, self.static_shared_bytes = lay_out([v for v in shared if v.n_bytes])
        alignment = max([16, *(v.alignment for v in dynamic)])
        self.dynamic_shared_offset = -(-self.static_shared_bytes // alignment) * alignment
        self.shared_offsets = {**offsets, **dict.fromkeys(dynamic, self.dynamic_shared_offset)}
        self.uses_warpgroups = any(i.name == "wgmma" for i in self.instructions)
        self.granules = {space: smallest_access(self.instructions, space) for space in SPACES}


def smallest_access(instructions, space):
    """Bytes of the smallest access that may go to a memory space, at most 8."""
    smallest = 8
    for instruction in instructions:
        others = {"global", "shared", "local", "param", "const"} - {space}
        if instruction.name in ("ld", "st", "atom", "red"):
            if not others & {m.split("::")[0] for m in instruction.modifiers}:
                width = [int(m[1:]) for m in instruction.modifiers if m in ("v2", "v4", "v8")]
                n_bytes = DTYPES[instruction.type].itemsize * (width or [1])[0]
                smallest = min(smallest, n_bytes)
        elif instruction.name == "cp" and len(instruction.operands) > 2:
            smallest = min(smallest, instruction.operands[2].value)
    return smallest


def lay_out(variables):
    offsets, end = {}, 0
    for variable in variables:
        offsets[variable] = -(-end // variable.alignment) * variable.alignment
        end = offsets[variable] + variable.n_bytes
    return offsets, end


def build(body):
    """Basic blocks of a list of labels and instructions; returns the first."""
    at_label = {item.name: Block() for item in body if isinstance(item, Label)}
    entry = block = Block()

    def start(new, *targets, selector=None):
        nonlocal block
        block.selector, block.targets = selector, list(targets)
        block = new

    for item in body:
        if isinstance(item, Label):
            start(at_label[item.name], at_label[item.name])
            continue
        name, predicate = item.name, item.predicate
        if name in ("bra", "ret", "exit"):
            block.issued.append(item.opcode)
            taken = at_label[item.operands[0].parts[0]] if name == "bra" else None
            following = Block()
            if predicate is None:
                start(following, taken)
            else:
                targets = (taken, following) if predicate[1] else (following, taken)
                start(following, *targets, selector=predicate[0])
            continue
        if name == "brx":
            if predicate is not None:
                raise UnsupportedInstruction("predicated brx").at(item.line, item.text)
            block.issued.append(item.opcode)
            index, table = item.operands
            start(Block(), *(at_label[label] for label in table.parts), selector=index)
            continue
        after = None
        if predicate is not None and name in BRANCHED_AROUND:
            inside, after = Block(), Block()
            targets = (inside, after) if predicate[1] else (after, inside)
            start(inside, *targets, selector=predicate[0])
            item.predicate = None
        block.instructions.append(item)
        block.issued.append(item.opcode)
        if item.is_block_barrier:
            block.barrier = item
            after = after or Block()
        if after is not None:
            start(after, after)
    start(None, None)
    return entry


def simplify(entry):
    """Drop empty and unreachable blocks, and join those that follow each other."""

    def skip_empty(block):
        seen = set()
        while block is not None and not block.issued and block not in seen:
            seen.add(block)
            if block.selector is not None or block.barrier is not None:
                break
            block = block.targets[0]
        return block

    blocks = postorder([entry], Block.successors)[::-1]
    for block in blocks:
        block.targets = [skip_empty(target) for target in block.targets]
        if all(target is block.targets[0] for target in block.targets):
            block.selector, block.targets = None, block.targets[:1]
    blocks = postorder([entry], Block.successors)[::-1]
    n_predecessors = dict.fromkeys(blocks, 0)
    for block in blocks:
        for target in block.successors():
            n_predecessors[target] += 1
    joined = set()
    for block in blocks:
        while block not in joined and block.selector is None and block.barrier is None:
            following = block.targets[0]
            if following in (None, entry, block) or n_predecessors[following] != 1:
                break
            block.instructions += following.instructions
            block.issued += following.issued
            block.selector, block.targets = following.selector, following.targets
            block.barrier = following.barrier
            joined.add(following)
    return [block for block in blocks if block not in joined]


def postorder(roots, successors):
    """Depth-first, without recursion."""
    seen, order = set(), []
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(successors(root)))]
        while stack:
            node, rest = stack[-1]
            following = next((n for n in rest if n not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(successors(following))))
    return order


def components(nodes, roots):
    """Strongly connected components in topological order (Kosaraju)."""
    inside = set(nodes)
    predecessors = {node: [] for node in nodes}
    for node in nodes:
        for target in node.successors():
            if target in inside:
                predecessors[target].append(node)
    order = postorder(
        [root for root in [*roots, *nodes] if root in inside],
        lambda node: [target for target in node.successors() if target in inside],
    )
    done, found = set(), []
    for node in reversed(order):
        if node not in done:
            component = postorder(
                [node], lambda n: [p for p in predecessors[n] if p not in done and p in inside]
            )
            done.update(component)
            found.append(component)
    return found


def arrange(blocks, entry):
    """The weak topological order of Bourdoncle, with one block per loop that goes back."""
    rank = {block: k for k, block in enumerate(blocks)}

    def inner(nodes, roots):
        result = []
        for component in components(nodes, roots):
            if len(component) == 1:
                result += component
                continue
            inside = set(component)
            heads = {t for b in rank if b not in inside for t in b.successors() if t in inside}
            head = entry if entry in inside else min(heads, key=rank.get)
            back = [block for block in component if head in block.targets]
            rest = [block for block in component if block is not head]
            body = [head, *inner(rest, head.successors())]
            if back != [body[-1]]:
                latch = Block(targets=[head])
                for block in back:
                    block.replace_target(head, latch)
                rank[latch] = len(rank)
                body.append(latch)
            result += body
        return result

    return inner(blocks, [entry])
