"""The losses; importing this package registers them."""

from numbanet.losses.l1 import L1 as L1
from numbanet.losses.l2 import L2 as L2
from numbanet.losses.relative_l2 import RelativeL2 as RelativeL2
