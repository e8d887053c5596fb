"""Benchmarks: `python -m benchmarks.scripts.NAME` answers one question each. See README.md."""
