"""Division of fused inference and training among warps and blocks.

See docs/design/fused_mlp_notebook.md for the measurements behind it.
"""

from dataclasses import dataclass, replace

from numbanet.cuda.block.layout import MOST_NARROW, MOST_SUMS, FusedLayout, fits
from numbanet.cuda.driver.device import RESERVED
from numbanet.encoded_network import EncodedNetwork
from numbanet.tiles.warpgroups import WARPGROUP_ROWS

# Inference: warps of a block, blocks of a multiprocessor, and whether matrices of weights come one
# after the other; the first of these that fits. One block loads the weights once for all its warps,
# but where tables are read fewer warps are started, so it comes first without tables only.
ONE_LARGE_BLOCK = (16, 1, False)
INFERENCE_SHAPES = (
    *((8, 2, False), (4, 2, False), (8, 1, False)),
    *((n_warps, 1, True) for n_warps in range(8, 0, -1)),
)
# Warps of a multiprocessor: enough for gathers, which find more in the first-level cache then; and
# the most that have registers for networks over MOST_NARROW wide.
FEW_WARPS = 8
WARPS = 4  # of a group that trains
TRAINING_GROUPS = 2  # of a multiprocessor, in one block where they fit
REGISTERS, MOST_REGISTERS = 65536, 255  # of a multiprocessor, and of a thread
COARSEST = 16 * 1024  # bytes of private gradients, which pay most
LEAST_CACHE = 48 * 1024  # bytes for gathers, beside one group of all warps
FIRST_LEVEL_CACHE = 64 * 1024  # bytes for gathers, of the memory that it has with shared memory


@dataclass(frozen=True)
class FusedShape:
    """Layout of a block, and the number of blocks per multiprocessor.

    Registers and shared memory are left for n_blocks, and n_started of these are launched.
    """

    layout: FusedLayout
    n_blocks: int
    n_started: int

    @property
    def max_registers(self) -> int:
        """Limit of registers per thread; they are allocated in eights."""
        return min(REGISTERS // (self.n_blocks * self.layout.n_threads) // 8 * 8, MOST_REGISTERS)


def half_of(max_shared_bytes: int) -> int:
    """Shared memory of a block where a multiprocessor has two of them."""
    return (max_shared_bytes + RESERVED) // 2 - RESERVED


def inference_shape(model: EncodedNetwork, max_shared_bytes: int) -> FusedShape:
    """Shape of inference for a limit of shared memory per block; it still may not fit."""
    reads_grid = model.encoding.n_params > 0
    for n_warps, n_blocks, streams in (
        *(() if reads_grid else (ONE_LARGE_BLOCK,)),
        *INFERENCE_SHAPES,
    ):
        layout = FusedLayout(model, n_warps, trains=False, streams=streams)
        has_registers = n_blocks * n_warps <= FEW_WARPS or max(layout.widths) <= MOST_NARROW
        most = max_shared_bytes if n_blocks == 1 else half_of(max_shared_bytes)
        if has_registers and fits(layout, most):
            break
    n_started = min(n_blocks, FEW_WARPS // n_warps) if reads_grid else n_blocks
    return FusedShape(layout, n_blocks, n_started)


def training_shape(
    model: EncodedNetwork, max_shared_bytes: int, has_warpgroups: bool = False
) -> FusedShape:
    """Shape of training for a limit of shared memory per block; it still may not fit.

    In one block groups share its weights and private gradients, of which more fit then. Where a
    group has not enough registers for the gradients of all weights, all warps are one group; with a
    grid only if its rows leave some first-level cache. Where the GPU has instructions for four
    warps together, networks 64 wide are multiplied by these.
    """
    in_warpgroups = has_warpgroups and model.network.widths[1] == WARPGROUP_ROWS
    layout = FusedLayout(model, WARPS, trains=True, in_warpgroups=in_warpgroups)
    if layout.first_sums[-1] > MOST_SUMS:
        deep = deep_shape(layout, max_shared_bytes)
        most = max_shared_bytes - (LEAST_CACHE if model.encoding.n_params else 0)
        if deep.layout.shared_bytes <= most:
            return deep
    together = replace(layout, n_groups=TRAINING_GROUPS)
    if together.shared_bytes <= max_shared_bytes:
        wanted = min(together.shared_bytes + COARSEST, max_shared_bytes)
        layout = together.with_private(max(max_shared_bytes - FIRST_LEVEL_CACHE, wanted))
        return FusedShape(layout, 1, 1)
    half = half_of(max_shared_bytes)
    if layout.shared_bytes <= half:
        return FusedShape(layout.with_private(half), 2, 2)
    return FusedShape(layout.with_private(max_shared_bytes), 1, 1)


def deep_shape(layout: FusedLayout, max_shared_bytes: int) -> FusedShape:
    """Shape with one group of all warps, each of which has fewer blocks of gradients."""
    layout = replace(layout, n_warps=TRAINING_GROUPS * WARPS)
    if layout.shared_bytes > max_shared_bytes:
        layout = replace(layout, packs_outputs=True)
    return FusedShape(layout, 1, 1)
