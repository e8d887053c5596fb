"""Common parts of the kernels for matrix products: a tile of the result for each block."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import block_index
from numbanet.device import device


@dataclass(frozen=True)
class Product:
    """Kernel whose blocks each compute a tile [rows, columns] of a product.

    `depth` is what a block takes at a time, `n_resident` how many blocks a multiprocessor runs at
    a time, more or less, and `max_registers` how many a thread may use for that.
    """

    kernel: Callable
    rows: int
    columns: int
    depth: int
    n_threads: int
    n_resident: int
    shared_bytes: int = 0
    max_registers: int | None = None

    def named(self, name: str) -> "Product":
        """The product itself, after giving its kernel a name for profilers."""
        self.kernel.__qualname__ = name
        return self


@cache
def block_position(tile_rows: int, tile_columns: int):
    """Device function (n_rows): the first row and column of a block's tile.

    Neighbours share columns, which are the larger operand.
    """
    one, tile_rows, tile_columns = (np.uint32(n) for n in (1, tile_rows, tile_columns))

    @device
    def block_position(n_rows):
        n_tiles = (n_rows + tile_rows - one) // tile_rows
        row, column = block_index() % n_tiles, block_index() // n_tiles
        return row * tile_rows, column * tile_columns

    return block_position
