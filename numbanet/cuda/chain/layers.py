"""Memory between the kernels of a network on a CUDA device."""

from typing import Any

from numbanet.cuda.memory.arrays import empty
from numbanet.networks.base import AbstractMLP
from numbanet.storage.views import DTYPES, ITEM_SIZES


class Layers:
    """Addresses of the buffers between the kernels, for slabs of up to `pitch` samples.

    Args:
        device: a CudaDevice, or anything with its methods.
        network: whose layers they are.
        precision: of the stored numbers.
        pitch: numbers between a feature and the next one.
        keeps_inputs: keep the input of each activation, and not only where it is differentiated
            there.
    """

    def __init__(
        self, device: Any, network: AbstractMLP, precision: str, pitch: int, keeps_inputs=False
    ):
        item_size = ITEM_SIZES[precision]
        self.pitch = pitch
        widths = network.widths
        keeps = [keeps_inputs or each.from_input for each in network.layer_activations]
        kept = [width * keep for width, keep in zip(widths[1:], keeps, strict=True)]
        widest = max(widths[1:-1], default=0)
        gradients = [widths[0], widest, widest, widths[-1]]
        places, n_rows = [], 0
        for width in (*widths, *kept, *gradients):
            places.append(n_rows)
            n_rows += width
        self.memory = empty((n_rows * pitch,), DTYPES[precision], device)
        start = self.memory.address
        addresses = [start + place * pitch * item_size for place in places]
        n = len(widths)
        self.values = addresses[:n]  # encoded, hidden layers, output
        self.kept = [  # argument of each activation's derivative
            addresses[n + k] if width else self.values[k + 1] for k, width in enumerate(kept)
        ]
        dl_dencoded, *dl_dhidden, dl_doutput = addresses[-4:]
        between = (dl_dhidden[k % 2] for k in range(1, n - 1))  # two buffers in turns
        self.dl_dvalues = [dl_dencoded, *between, dl_doutput][:n]
