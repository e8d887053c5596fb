"""Cooperative operations of a warp's threads: matrix fragments in registers and shared memory."""
