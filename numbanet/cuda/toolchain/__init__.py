"""From Python to PTX and machine code: the compiler, the assembler, and what they are part of."""
