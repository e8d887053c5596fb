"""Classes that pass on to a member of theirs what it can do."""

from operator import attrgetter


def forwarding(member: str, names: str) -> type:
    """A base class whose attributes of these names are those of a member."""
    return type(
        "Forwarding", (), {name: property(attrgetter(f"{member}.{name}")) for name in names.split()}
    )
