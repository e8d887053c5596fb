"""Losses; importing this package registers them."""

from numbanet.losses.cross_entropy import CrossEntropy as CrossEntropy
from numbanet.losses.huber import Huber as Huber
from numbanet.losses.l1 import L1 as L1
from numbanet.losses.l2 import L2 as L2
from numbanet.losses.log_l1 import LogL1 as LogL1
from numbanet.losses.mape import MAPE as MAPE
from numbanet.losses.relative_l1 import RelativeL1 as RelativeL1
from numbanet.losses.relative_l2 import RelativeL2 as RelativeL2
from numbanet.losses.relative_l2_luminance import RelativeL2Luminance as RelativeL2Luminance
from numbanet.losses.smape import SMAPE as SMAPE
from numbanet.losses.variance import Variance as Variance
