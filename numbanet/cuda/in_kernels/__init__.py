"""Models within users' kernels."""
