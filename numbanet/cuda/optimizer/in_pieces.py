"""Training on batches that are evaluated in equal pieces, alike on all ranks."""

from typing import Any

from numbanet.communicator import Communicator
from numbanet.cuda.optimizer.training import CudaTraining
from numbanet.cuda.ranks.pieces import PieceByPiece


class TrainingInPieces(CudaTraining):
    """Training whose ranks all have the sums of all, and step alike."""

    def __init__(self, device: Any, engine: Any, comm: Communicator, *given: Any):
        super().__init__(device, PieceByPiece(device, engine, comm), *given)
        self._is_alone = comm.size == 1

    def use(self, engine):
        self._engine.use(engine)
