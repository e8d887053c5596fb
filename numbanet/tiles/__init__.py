"""What the threads of a warp compute together: matrix fragments in registers and shared memory."""
