"""numbanet: small neural networks, trained and queried fast, in pure Python."""

from numbanet import ctrl_c as _ctrl_c  # noqa: F401 (Ctrl-C ends the command's imports)

# isort: split
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from numbanet import encodings as _encodings  # noqa: F401 (registers the components)
from numbanet import losses as _losses  # noqa: F401
from numbanet import networks as _networks  # noqa: F401
from numbanet import optimizers as _optimizers  # noqa: F401
from numbanet.config import load_config as load_config
from numbanet.create import TrainableModel as TrainableModel
from numbanet.create import create_from_config as create_from_config
from numbanet.create import create_loss as create_loss
from numbanet.create import create_optimizer as create_optimizer
from numbanet.create import load as load
from numbanet.inline_compiler import DeviceCodeError as DeviceCodeError
from numbanet.matrices import from_matrices as from_matrices
from numbanet.matrices import to_matrices as to_matrices
from numbanet.model import Encoding as Encoding
from numbanet.model import Network as Network
from numbanet.model import NetworkWithInputEncoding as NetworkWithInputEncoding
from numbanet.model import create_encoding as create_encoding
from numbanet.model import create_network as create_network
from numbanet.model import create_network_with_input_encoding as create_network_with_input_encoding
from numbanet.params_file import load_params as load_params
from numbanet.params_file import save_params as save_params
from numbanet.registry import ConfigError as ConfigError
from numbanet.registry import register as register
from numbanet.snapshot import SnapshotError as SnapshotError
from numbanet.tcnn_snapshot import TcnnSnapshot as TcnnSnapshot
from numbanet.tcnn_snapshot import read_tcnn_snapshot as read_tcnn_snapshot
from numbanet.trainer import Loss as Loss
from numbanet.trainer import Trainer as Trainer
from numbanet.unknown_options import UnknownOptionWarning as UnknownOptionWarning

try:
    __version__ = _version("numbanet")
except _PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
