"""GPU code without a GPU: a PTX emulator, and a device of numbanet's that runs kernels on it."""
