"""Classes that forward attributes to a member."""

from operator import attrgetter


def forwarding(member: str, names: str) -> type:
    """Base class that forwards attributes of these names to a member."""
    return type(
        "Forwarding", (), {name: property(attrgetter(f"{member}.{name}")) for name in names.split()}
    )
