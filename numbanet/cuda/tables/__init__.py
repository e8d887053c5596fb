"""Gradients of tables, added up as integers in shared memory instead of the second-level cache."""
