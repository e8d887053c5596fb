"""Operations of a block of threads on a network: shared by fused, wide and users' kernels."""
