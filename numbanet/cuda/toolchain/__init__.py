"""Toolchain from Python to PTX and machine code: compiler, assembler, and their packages."""
