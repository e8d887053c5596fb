"""Many models of one shape, trained side by side by the kernels of one model."""
