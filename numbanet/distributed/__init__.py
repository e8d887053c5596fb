"""Training over several processes, each with a device of its own: numbanet.distributed.init()."""

from numbanet.communicator import Communicator as Communicator
from numbanet.communicator import RankError as RankError
from numbanet.distributed.launch import init as init
