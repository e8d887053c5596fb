"""The CUDA target: compiling without a GPU, assembling, and launching through the driver."""
