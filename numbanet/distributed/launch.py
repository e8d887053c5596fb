"""Construction of a communicator from what a launcher says of this process."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from numbanet.communicator import Alone, Communicator
from numbanet.shown import shown

# Launcher -> the variables with a process's rank and the number of processes; first match.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE"),
    "mpirun of Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "mpirun of MPICH": ("PMI_RANK", "PMI_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}
TIMEOUT = 300.0  # seconds, in which the first step of a large model is compiled
LONGEST = 1e9  # seconds


def init(
    comm: Any = None, *, timeout: float = TIMEOUT, pieces: int | None = None,
    equal_batches: bool = False,
) -> Communicator:  # fmt: skip
    """Connect to the other processes of this launch.

    Args:
        comm: a communicator of mpi4py, such as MPI.COMM_WORLD; None for what started this process:
            mpirun or srun (through mpi4py) or torchrun (through PyTorch's gloo). A process that was
            started by itself is the only rank.
        timeout: seconds after which a rank that does not come is given up.
        pieces, equal_batches: see Communicator; pieces are a power of two.

    Raises:
        TypeError: `comm` is no communicator of mpi4py.
        ValueError: an argument, or a launcher's variable, is not allowed.
        RuntimeError: a package is missing, or the launcher is not of the MPI that mpi4py uses.
    """
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not (is_number and 0 < timeout <= LONGEST):
        allowed = f"seconds above 0, {LONGEST:g} at most"
        raise ValueError(f"timeout: {shown(timeout)} is not allowed; use {allowed}")
    if not isinstance(equal_batches, bool):
        raise ValueError(f"equal_batches: {shown(equal_batches)} is not allowed; use True or False")
    found = meet(comm, timeout, pieces)
    found.equal_batches = equal_batches
    return found


def meet(comm: Any, timeout: float, pieces: int | None) -> Communicator:
    """Communicator of this launch, or of one of mpi4py."""
    if comm is None:
        launcher, rank, size = launch_of(os.environ)
        if size == 1:
            return Alone(pieces)
        if launcher == "torchrun":
            require("torch", "torch")
            from numbanet.distributed.gloo import GlooCommunicator

            return GlooCommunicator(rank, size, timeout, pieces)
    require("mpi4py", "mpi")
    from numbanet.distributed.mpi import MpiCommunicator, world

    if comm is not None:
        return MpiCommunicator(comm, timeout, pieces)
    found = world()
    if found.Get_size() != size:
        raise RuntimeError(
            f"{launcher} started {size} processes, and mpi4py sees {found.Get_size()}: it uses "
            "another MPI than the launcher's; use the mpirun of that MPI, or for srun its --mpi"
        )
    return MpiCommunicator(found, timeout, pieces)


def launch_of(variables: Mapping[str, str]) -> tuple[str, int, int]:
    """Launcher, rank of this process and number of processes; "" for no launcher.

    Raises:
        ValueError: the variables are no numbers that fit each other.
    """
    for launcher, names in LAUNCHERS.items():
        given = [variables.get(name) for name in names]
        if None not in given:
            rank, size = (int(text) if text.isdecimal() else -1 for text in given)
            if not 0 <= rank < size:
                values = ", ".join(f"{k}={shown(v)}" for k, v in zip(names, given, strict=True))
                raise ValueError(f"{launcher}: {values}; use a rank from 0, and more processes")
            return launcher, rank, size
    return "", 0, 1


def require(module: str, extra: str) -> None:
    """Raise RuntimeError unless a module is installed."""
    if find_spec(module) is None:
        raise RuntimeError(f"several processes need {module}: pip install 'numbanet[{extra}]'")
