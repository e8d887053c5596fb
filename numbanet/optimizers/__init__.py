"""The optimizers; importing this package registers them."""

from numbanet.optimizers.adam import Adam as Adam
from numbanet.optimizers.sgd import SGD as SGD
