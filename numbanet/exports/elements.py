"""Elements and slices of arrays and tuples."""

from numbanet.exports.arithmetic import constant
from numbanet.exports.program import I64
from numbanet.exports.views import NeedsConstant, Untranslatable, View


def element(tracer, owner, index):
    if isinstance(owner, View):
        if isinstance(index, slice):
            return part(tracer, owner, index)
        if isinstance(index, tuple):
            (index,) = index
        return tracer.load(owner, index)
    if not isinstance(owner, tuple):
        raise Untranslatable("an index into anything but an array or a tuple")
    if isinstance(index, slice):
        ends = [each if each is None else int(each.value) for each in (index.start, index.stop)]
        return owner[slice(*ends)]
    if index.is_constant:
        return owner[int(index.value)]
    if tracer.keeps_loops and tracer.loops_open:
        raise NeedsConstant("an index into a tuple")
    return chosen(tracer, owner, index)


def chosen(tracer, owner, index):
    """Element of a tuple at an index that is known only at run time."""
    if isinstance(owner[0], tuple):
        columns = zip(*owner, strict=True)
        members = [chosen(tracer, column, index) for column in columns]
        kind = type(owner[0])
        return kind(*members) if hasattr(kind, "_fields") else tuple(members)
    value = owner[0]
    for k in range(1, len(owner)):
        is_it = tracer.binary("eq", index.type, index, constant(index.type, k))
        value = tracer.select(is_it, owner[k], value)
    return value


def part(tracer, view, index):
    """Slice of a view; without steps, and only constants may count from the end."""
    start = constant(I64, 0) if index.start is None else tracer.cast(index.start, I64)
    stop = view.length if index.stop is None else tracer.cast(index.stop, I64)
    if index.step is not None:
        raise Untranslatable("a slice with a step")
    ends = [within(tracer, view, end) for end in (start, stop)]
    length = tracer.binary("sub", I64, ends[1], ends[0])
    return view._replace(first=tracer.binary("add", I64, view.first, ends[0]), length=length)


def within(tracer, view, end):
    """End of a slice, counted from the first element, clamped to the last."""
    if end.is_constant and end.value < 0:
        end = tracer.binary("add", I64, view.length, end)
    if end.is_constant and view.length.is_constant:
        return constant(I64, min(end.value, view.length.value))
    return end
