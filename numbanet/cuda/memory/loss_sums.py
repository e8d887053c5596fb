"""Loss of a batch, from the partial sums of a pass."""

from numbanet.cuda.launch.threads import WARP, thread_index, warp_sum
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO, device, select
from numbanet.storage.views import float_vector

AT_ONCE = 4  # loads of a thread that is waiting for memory


@device
def sum_of(sums, n):
    """Sum of n numbers, in a fixed order, by the first warp of a block; all its lanes get it."""
    k, total = thread_index(), ZERO
    while k < n:
        for _ in range(AT_ONCE):
            total += select(k < n, sums[min(k, n - 1)], ZERO)
            k += WARP
    return warp_sum(total)


def write_mean(psums: Address, n: UInt, factor: Float, pvalue: Address):
    """Write the sum times a factor; one warp."""
    mean = sum_of(float_vector(psums, n), n) * factor
    if thread_index() == 0:
        float_vector(pvalue, 1)[0] = mean
