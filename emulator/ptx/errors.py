"""Errors of parsing and running PTX; each names the line it happened at."""


class EmulationError(Exception):
    """Base class. `line` is the line of the PTX text (from 1), `text` the instruction there."""

    line = None
    text = None
    kernel = None

    def at(self, line, text, kernel=None):
        if self.line is None:
            self.line, self.text, self.kernel = line, text, kernel
        return self

    def __str__(self):
        where = "" if self.line is None else f"\n  at PTX line {self.line}: {self.text[:160]}"
        kernel = f"\n  in kernel {self.kernel[:160]}" if self.kernel else ""
        return super().__str__() + where + kernel


class PTXSyntaxError(EmulationError):
    """The text is not PTX as NVVM writes it."""


class UnsupportedInstruction(EmulationError):
    """An instruction, or a form of one, that the emulator does not have."""


class LaunchError(EmulationError):
    """A launch that a driver would refuse."""


class OutOfMemory(EmulationError):
    """The emulated heap is full."""


class MemoryFault(EmulationError):
    """Base of the errors of loads, stores and atomics."""


class OutOfBounds(MemoryFault):
    """An access outside of every allocation, or of the block's shared or local memory."""


class UseAfterFree(OutOfBounds):
    """An access to, or a view of, memory that was freed."""


class Misaligned(MemoryFault):
    """An address that is not a multiple of the size of the access."""


class UninitialisedRead(MemoryFault):
    """A read of shared memory that nothing wrote, or whose asynchronous copy is pending."""


class Race(MemoryFault):
    """Two unordered accesses of two threads to one place, one of them a store."""


class DivergentCollective(EmulationError):
    """A collective instruction that not all lanes it needs reach together."""


class Deadlock(EmulationError):
    """Threads that wait at a barrier which can never open."""


class StepLimit(EmulationError):
    """More basic blocks were run than allowed: most likely an endless loop."""


class Trap(EmulationError):
    """A `trap` or `brkpt` instruction was executed."""
