"""Memory between the kernels of a network on a CUDA device."""

from itertools import accumulate
from typing import Any, NamedTuple

from numbanet.cuda.memory.arrays import empty
from numbanet.networks.base import AbstractMLP
from numbanet.storage.views import DTYPES, ITEM_SIZES


class Rows(NamedTuple):
    """Numbers of the first rows of what lies between the kernels, each of a row for a feature."""

    values: tuple[int, ...]  # encoded, hidden layers, output
    kept: tuple[int, ...]  # argument of each activation's derivative
    dl_dvalues: tuple[int, ...]
    n: int  # of all rows


def rows_between(
    network: AbstractMLP, keeps_inputs: bool = False, keeps_gradients: bool = False
) -> Rows:
    """Rows of a network; see Layers."""
    widths = network.widths
    n, widest = len(widths), max(widths[1:-1], default=0)
    keeps = [keeps_inputs or each.from_input for each in network.layer_activations]
    kept = [width * keep for width, keep in zip(widths[1:], keeps, strict=True)]
    n_between = n - 2 if keeps_gradients else 2
    gradients = [widths[0], *(widest,) * n_between, widths[-1]]
    *places, n_rows = accumulate((*widths, *kept, *gradients), initial=0)
    values = places[:n]
    dl_dencoded, *dl_dhidden, dl_doutput = places[-len(gradients) :]
    between = (dl_dhidden[k % n_between] for k in range(n - 2))
    return Rows(
        tuple(values),
        tuple(places[n + k] if width else values[k + 1] for k, width in enumerate(kept)),
        (dl_dencoded, *between, dl_doutput)[:n],
        n_rows,
    )


class Layers:
    """Addresses of the buffers between the kernels, for slabs of up to `pitch` samples.

    Args:
        device: a CudaDevice, or anything with its methods.
        network: whose layers they are.
        precision: of the stored numbers.
        pitch: numbers between a feature and the next one.
        keeps_inputs: keep the input of each activation, and not only where it is differentiated
            there.
        keeps_gradients: of each hidden layer, where otherwise two buffers are used in turns.
    """

    def __init__(
        self, device: Any, network: AbstractMLP, precision: str, pitch: int,
        keeps_inputs: bool = False, keeps_gradients: bool = False,
    ):  # fmt: skip
        self.pitch = pitch
        rows = rows_between(network, keeps_inputs, keeps_gradients)
        self.memory = empty((rows.n * pitch,), DTYPES[precision], device)
        start, row_bytes = self.memory.address, pitch * ITEM_SIZES[precision]
        self.values, self.kept, self.dl_dvalues = (
            [start + row * row_bytes for row in each] for each in rows[:3]
        )
