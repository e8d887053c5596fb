"""Summary of a model, for a person: parts, shapes, parameters, bytes, and kernels that serve it.

`str` gives plain text, a notebook shows a table, and rich, where a program uses it, its own table:
none of them needs a package.
"""

import dataclasses
import html
import math
from dataclasses import dataclass
from typing import Any

from numbanet import registry
from numbanet.engine import Service
from numbanet.registry import default_of
from numbanet.shown import shown
from numbanet.storage.views import FLOAT_BYTES, ITEM_SIZES

COLUMNS = ("part", "shape", "parameters", "bytes")
SERVED = ("passes", "served by", "why")


@dataclass(frozen=True)
class Part:
    """Part of a model's parameters; bytes are those of the parameters and all their copies."""

    name: str
    shape: tuple[int, ...]
    n_params: int
    n_bytes: int

    def cells(self) -> tuple[str, ...]:
        """Texts of the row, in the order of COLUMNS."""
        shape = " x ".join(map(str, self.shape))
        return self.name, shape, f"{self.n_params:,}", f"{self.n_bytes:,}"


@dataclass(frozen=True)
class Summary:
    """Tables of a model's parts, and of the kernels that serve its passes.

    Args:
        title: kind of model, device and precision.
        components: of the model, with their names.
        parts: of its parameters.
        services: of its passes.
    """

    title: str
    components: dict[str, Any]
    parts: tuple[Part, ...]
    services: tuple[Service, ...]

    @property
    def n_params(self) -> int:
        """Number of all parameters."""
        return sum(part.n_params for part in self.parts)

    @property
    def n_bytes(self) -> int:
        """Bytes of the parameters and all their copies."""
        return sum(part.n_bytes for part in self.parts)

    def heading(self) -> str:
        """Title, and a line for each component."""
        width = max(map(len, self.components))
        lines = (f"  {name:{width}}  {shortened(each)}" for name, each in self.components.items())
        return "\n".join((self.title, *lines))

    def tables(self) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """Headings and rows of both tables."""
        total = ("total", "", f"{self.n_params:,}", f"{self.n_bytes:,}")
        services = [(each.passes, each.engine, each.reason) for each in self.services]
        return [(COLUMNS, [*(part.cells() for part in self.parts), total]), (SERVED, services)]

    def __str__(self) -> str:
        return "\n\n".join((self.heading(), *(_text(*table) for table in self.tables())))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heading = f"<pre>{html.escape(self.heading())}</pre>"
        return heading + "".join(_html(*table) for table in self.tables())

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
            made = Table()
            for column in columns:
                made.add_column(column, justify="right" if _is_number(column) else "left")
            for row in rows:
                made.add_row(*map(Text, row))
            return made

        return Group(Text(self.heading()), *(table(*each) for each in self.tables()))


def shortened(component: Any) -> str:
    """Component as text, with the options that are not the default."""
    if isinstance(component, tuple) and any(map(dataclasses.is_dataclass, component)):
        return f"[{', '.join(map(shortened, component))}]"
    if not dataclasses.is_dataclass(component):
        return shown(component)
    given = (
        f"{name}={shortened(getattr(component, name))}"
        for name, option in registry.options(type(component)).items()
        if getattr(component, name) != default_of(option)
    )
    return f"{type(component).__name__}({', '.join(given)})"


def summary_of(network: Any, trainer: Any = None) -> Summary:
    """Summary of a model, and of the trainer's state, if there is one."""
    target = network.target
    each = _bytes_of_a_parameter(target.precision, trainer)
    parts = tuple(
        Part(name, shape, math.prod(shape), math.prod(shape) * each)
        for name, shape in network.named_shapes().items()
    )
    components = {}
    for part in network.composition.parts:
        before = f"{part.name}." if part.name else ""
        if part.shares is not None:
            components[f"{before}shares"] = network.composition.parts[part.shares].name
            continue
        components[f"{before}encoding"] = part.encoding
        if part.network is not None:
            components[f"{before}network"] = part.network
    if trainer is not None:
        components |= {"loss": trainer.loss, "optimizer": trainer.optimizer}
    widths = f"{network.n_input_dims} inputs, {network.n_output_dims} outputs"
    kind = type(network).__name__
    title = f"{kind}: {widths}, {network.n_params:,} parameters, {target.precision}, {target.name}"
    services = network.engine.services()
    perturbation = getattr(trainer, "perturbation", None)
    made = (getattr(each, "_coarse_to_fine", None) for each in (network, perturbation))
    leveled = next(filter(None, made), None)  # of the same kernels where there are two
    if leveled is not None:
        services += leveled.services()
    if perturbation is not None:
        services += perturbation.services()
    return Summary(title, components, parts, tuple(services))


def _bytes_of_a_parameter(precision: str, trainer: Any) -> int:
    """Bytes of a parameter, its copy for the kernels, its gradient, and the optimizer's state."""
    copy = ITEM_SIZES[precision] if precision != "float32" else 0
    n_state = 0 if trainer is None else trainer.optimizer.n_state
    return (2 + n_state) * FLOAT_BYTES + copy


def _is_number(column: str) -> bool:
    return column in ("parameters", "bytes")


def _text(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, columns, strict=True)
        line = (f"{c:>{w}}" if _is_number(column) else f"{c:{w}}" for c, w, column in cells)
        lines.append("  ".join(line).rstrip())
    return "\n".join(lines)


def _html(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line('th', columns)}{''.join(line('td', row) for row in rows)}</table>"


def summary(model: Any) -> Summary:
    """Summarise a model: parts, shapes, parameters, bytes, and the kernels that serve it and why.

    Args:
        model: from create_from_config or load, a network, an encoding, or a trainer.

    Returns:
        Something to print: `print(numbanet.summary(model))`. Notebooks and `rich.print` show it
        as tables.

    Raises:
        TypeError: it is none of these.
    """
    trainer = getattr(model, "trainer", model if hasattr(model, "optimizer_state") else None)
    network = model if trainer is None else trainer.network
    if not hasattr(network, "named_shapes"):
        raise TypeError(f"model: expected a model of numbanet, got a {type(model).__name__}")
    return summary_of(network, trainer)
