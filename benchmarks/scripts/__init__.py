"""Scripts, each of which answers one question."""
