"""Models inside of users' kernels."""
