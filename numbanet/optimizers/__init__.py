"""The optimizers; importing this package registers them."""

from numbanet.optimizers.adam import Adam as Adam
from numbanet.optimizers.adam_w import AdamW as AdamW
from numbanet.optimizers.average import Average as Average
from numbanet.optimizers.batched import Batched as Batched
from numbanet.optimizers.composite import Composite as Composite
from numbanet.optimizers.cosine_decay import CosineDecay as CosineDecay
from numbanet.optimizers.ema import EMA as EMA
from numbanet.optimizers.exponential_decay import ExponentialDecay as ExponentialDecay
from numbanet.optimizers.lookahead import Lookahead as Lookahead
from numbanet.optimizers.muon import Muon as Muon
from numbanet.optimizers.novograd import Novograd as Novograd
from numbanet.optimizers.param_groups import ParamGroups as ParamGroups
from numbanet.optimizers.piecewise import Piecewise as Piecewise
from numbanet.optimizers.sgd import SGD as SGD
from numbanet.optimizers.shampoo import Shampoo as Shampoo
from numbanet.optimizers.soap import SOAP as SOAP
from numbanet.optimizers.warm_up import WarmUp as WarmUp
