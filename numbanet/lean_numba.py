"""Numba's compilers without work that is repeated for each function, or that nobody reads.

There are two: Numba's own for the CPU, and numba-cuda's. Their modules have the same names, and
none of this changes what they compile.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType


@contextmanager
def replaced(owner, name: str, value) -> Iterator[None]:
    """Replace an attribute of a module or a class for a while."""
    is_inherited, found = name not in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, found)


@contextmanager
def lean(
    base: ModuleType, typing: ModuleType, flags: type, errors: ModuleType, event: ModuleType,
    postproc: ModuleType,
) -> Iterator[None]:  # fmt: skip
    """Context in which one of the compilers does less.

    Args:
        base: module of the contexts that generate code, and those of their typing:
        typing: module of the latter.
        flags: class of a function's options.
        errors: module of the exceptions, most of which only say that another way is to be tried.
        event: module that times compilations.
        postproc: module of the analysis after each pass.
    """
    defaults = {name: option.default for name, option in flags.options.items()}
    colours = type(errors.termcolor())  # of messages; Numba looks at the terminal for each
    with ExitStack() as stack:
        for owner, name, value in (
            (base.BaseContext, "refresh", refresh_if_registered(base.BaseContext.refresh)),
            (typing.BaseContext, "refresh", refresh_if_registered(typing.BaseContext.refresh)),
            (flags, "values", lambda own: {**defaults, **own._values}),  # for each comparison
            (event, "start_event", where_heard(event, event.start_event)),
            (event, "end_event", where_heard(event, event.end_event)),
            (event, "install_timer", lambda kind, callback: nullcontext()),
            (postproc.PostProcessor, "run", analyse_when_asked(postproc)),
        ):
            stack.enter_context(replaced(owner, name, value))
        if hasattr(colours, "_markup"):  # colorama is there
            stack.enter_context(replaced(colours, "_markup", without_style))
        yield


def without_style(colours, message: str, *style, **more) -> str:
    return message


def refresh_if_registered(refresh: Callable) -> Callable:
    """Let a context look through its registries where something was added to one of them.

    Numba does it before each function and each call of an intrinsic: thousands of times for a
    kernel, in which it finds something new some 40 times.
    """
    seen = {}  # by a context's registries: what lists they are, and how long in all

    def refresh_once(context):
        key = id(context._registries)
        lists, n = seen.get(key, ((), -1))
        if sum(map(len, lists)) != n:
            refresh(context)
            typing = getattr(context, "typing_context", context)
            loaders = *context._registries.items(), *typing._registries.items()
            lists = [getattr(each, kind) for each, at in loaders for kind in at.registry_items]
            seen[key] = lists, sum(map(len, lists))

    return refresh_once


def where_heard(event: ModuleType, tell: Callable) -> Callable:
    """Let the start or the end of something be told where somebody listens.

    Numba tells of each call of LLVM, and times each function's share of them.
    """
    listeners = event._registered

    def tell_listeners(kind, *details, **more):
        if listeners.get(kind):
            tell(kind, *details, **more)

    return tell_listeners


def analyse_when_asked(postproc: ModuleType) -> Callable:
    """Let the lifetimes of variables be computed when they are asked for.

    After most passes the next one asks for none of them.
    """
    analyse = postproc.PostProcessor.run

    def run(self, emit_dels=False, extend_lifetimes=False):
        function = self.func_ir
        if emit_dels or function.is_generator:
            analyse(self, emit_dels, extend_lifetimes)
            return
        function.blocks = postproc.transforms.canonicalize_cfg(function.blocks)
        function.variable_lifetime = postproc.VariableLifetime(function.blocks)
        function.generator_info = None

    return run
