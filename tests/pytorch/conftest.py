"""Settings of the tests of numbanet.torch."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for processes that tests start as well
