"""CUDA's driver: the device, its memory, launches and graphs; and a device that only compiles."""
