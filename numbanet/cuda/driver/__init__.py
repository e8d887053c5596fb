"""CUDA's driver: devices, their memory, launches and graphs; and a device that only compiles."""
