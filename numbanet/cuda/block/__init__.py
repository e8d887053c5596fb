"""What a block of threads does with a network: shared by fused, wide and users' kernels."""
