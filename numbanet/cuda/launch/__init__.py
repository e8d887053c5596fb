"""Foundations of every kernel: thread indices, rows of numbers, packed arguments."""
