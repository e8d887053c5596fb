"""Cache of small pieces of a GPU's freed memory, for the next allocation.

The driver takes as long for each of its calls as a small kernel does. All work is queued in one
order, so that what was queued for a piece is done before it is used anew.
"""

SMALLEST, LARGEST = 2**8, 2**20  # bytes of a piece; all sizes are powers of two
MOST = 4  # pieces of each size


class SpareMemory:
    """Free pieces by size; at most 8 MiB in all."""

    def __init__(self):
        self._sizes = {}  # of all pieces, by their addresses
        self._pieces = {}

    def size(self, n_bytes: int) -> int:
        """Bytes to ask the driver for, instead of n_bytes."""
        if n_bytes > LARGEST:
            return n_bytes
        return 1 << (max(n_bytes, SMALLEST) - 1).bit_length()

    def take(self, size: int) -> int | None:
        """Piece of this size; None if there is none."""
        try:
            return self._pieces[size].pop()
        except (KeyError, IndexError):  # another thread may just have taken it
            return None

    def lend(self, address: int, size: int) -> None:
        """Record a piece that the driver has allocated."""
        if size <= LARGEST:
            self._sizes[address] = size

    def keep(self, address: int) -> bool:
        """Keep a freed piece; False if the driver is to free it."""
        size = self._sizes.get(address)
        if size is None:
            return False
        pieces = self._pieces.get(size)
        if pieces is None:
            pieces = self._pieces.setdefault(size, [])
        if len(pieces) < MOST:
            pieces.append(address)
            return True
        del self._sizes[address]
        return False

    def clear(self) -> list[int]:
        """Remove and return all pieces, to be freed."""
        addresses = []
        for size in list(self._pieces):
            while (address := self.take(size)) is not None:  # one by one: other threads take some
                del self._sizes[address]
                addresses.append(address)
        return addresses
