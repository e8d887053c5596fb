"""Chain of kernels, one for each part of the encoding and each layer; serves every model."""
