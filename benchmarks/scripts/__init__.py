"""One question a script."""
