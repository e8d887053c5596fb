"""numbanet: small neural networks, trained and queried fast, in pure Python."""

from numbanet import ctrl_c as _ctrl_c  # noqa: F401 (Ctrl-C ends the command's imports)

# isort: split
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from numbanet import callbacks as callbacks
from numbanet import distributed as distributed
from numbanet import encodings as _encodings  # noqa: F401 (registers the components)
from numbanet import losses as _losses  # noqa: F401
from numbanet import networks as _networks  # noqa: F401
from numbanet import optimizers as _optimizers  # noqa: F401
from numbanet import schedules as schedules
from numbanet.array_types import Array, ArrayLike
from numbanet.composed_model import ComposedModel, create_composed_model
from numbanet.config import load_config
from numbanet.create import create_from_config, create_loss, create_optimizer, load
from numbanet.create_model import (
    create_encoding,
    create_network,
    create_network_with_input_encoding,
)
from numbanet.derivatives import Derivatives
from numbanet.encoding_model import Encoding
from numbanet.exports import export
from numbanet.fit import fit, training
from numbanet.history import History
from numbanet.inline_compiler import DeviceCodeError
from numbanet.loss_value import Loss
from numbanet.many import ManyModels, create_many
from numbanet.many_losses import Losses
from numbanet.matrices import from_matrices, to_matrices
from numbanet.network_with_input_encoding import Network, NetworkWithInputEncoding
from numbanet.params_file import load_params, save_params
from numbanet.registry import ConfigError, register
from numbanet.resized_grid import resize_grid
from numbanet.run import Run, Step
from numbanet.snapshot import SnapshotError
from numbanet.summary import Summary, summary
from numbanet.tcnn_snapshot import TcnnSnapshot, read_tcnn_snapshot
from numbanet.trainable_model import TrainableModel
from numbanet.trainer import Trainer
from numbanet.unknown_options import UnknownOptionWarning

# isort: split
from numbanet.app.learn_field import learn_field
from numbanet.app.learn_image import learn_image
from numbanet.app.learn_surface import learn_surface
from numbanet.app.learn_volume import learn_volume

try:
    __version__ = _version("numbanet")
except _PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Array",
    "ArrayLike",
    "ComposedModel",
    "ConfigError",
    "Derivatives",
    "DeviceCodeError",
    "Encoding",
    "History",
    "Loss",
    "Losses",
    "ManyModels",
    "Network",
    "NetworkWithInputEncoding",
    "Run",
    "SnapshotError",
    "Step",
    "Summary",
    "TcnnSnapshot",
    "TrainableModel",
    "Trainer",
    "UnknownOptionWarning",
    "__version__",
    "create_composed_model",
    "create_encoding",
    "create_from_config",
    "create_loss",
    "create_many",
    "create_network",
    "create_network_with_input_encoding",
    "create_optimizer",
    "export",
    "fit",
    "from_matrices",
    "learn_field",
    "learn_image",
    "learn_surface",
    "learn_volume",
    "load",
    "load_config",
    "load_params",
    "read_tcnn_snapshot",
    "register",
    "resize_grid",
    "save_params",
    "summary",
    "to_matrices",
    "training",
]


def __dir__() -> list[str]:
    """The public names, without the modules that hold them."""
    return __all__
