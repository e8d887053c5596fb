"""Ctrl-C while the command `numbanet` starts or ends: one line and exit status 130, no traceback.

Imports take a second, and code in them catches KeyboardInterrupt, or prints it. So while a command
has nothing to finish or to clean up, Ctrl-C ends the process where it stands. `import numbanet`
runs this module first; in other programs it does nothing.
"""

import os
import signal
import sys

INTERRUPTED = 130  # exit status of shells for a program that Ctrl-C ended


def is_command() -> bool:
    """Whether this process is `numbanet` or `python -m numbanet`."""
    program = next(iter(getattr(sys, "argv", ())), "")
    if program == "-m":  # Python is looking for the module, which makes it import the package
        # without regular expressions, whose import would leave more time for a traceback
        words = "\0".join(["", *sys.orig_argv, ""])
        return "\0-m\0numbanet\0" in words or "\0-mnumbanet\0" in words
    folder, name = os.path.split(program)
    is_module = name == "__main__.py" and os.path.basename(folder) == "numbanet"
    return is_module or os.path.splitext(name)[0] == "numbanet"


def leave(*_) -> None:
    """Signal handler that ends the process."""
    try:
        os.write(2, b"numbanet: error: interrupted\n")
    finally:
        os._exit(INTERRUPTED)


def leave_at_ctrl_c() -> None:
    """Make Ctrl-C end the command at once; no effect in other programs, or if it is ignored."""
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


leave_at_ctrl_c()
