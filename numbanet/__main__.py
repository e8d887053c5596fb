"""`python -m numbanet` is the command `numbanet`."""

import sys

from numbanet.app.command_line import main

sys.exit(main())
