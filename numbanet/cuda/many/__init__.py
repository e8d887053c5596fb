"""Many models of one shape, which the kernels of one model train side by side."""
