"""Training of wide networks in two kernels for each slab of samples."""
