"""Ceilings of the card: copies in its memory, and products of large matrices of halves."""

from benchmarks.harness.clocks import Clock

N_BYTES, SIZE, N_REPEATS = 2**30, 8192, 10


class Ceilings:
    """Measures the card; the best of several calls is the ceiling."""

    def __init__(self):
        self.clock = Clock(1)
        self.memory = [self.clock.call("cuMemAlloc", N_BYTES) for _ in range(2)]
        self.product = torch_product() or cupy_product()

    def measure(self):
        """Return rates per second by name; matrix products only where a library makes them."""
        rates = {"copied bytes": 2 * N_BYTES / self.seconds(self.copy)}
        if self.product:
            rates["half operations"] = 2 * SIZE**3 / self.seconds(self.product)
        return rates

    def copy(self):
        arguments = *self.memory, N_BYTES, self.clock.stream
        self.clock.call("cuMemcpyDtoDAsync", *arguments)

    def seconds(self, function):
        function()
        self.clock.start()  # on the legacy stream, as both libraries queue by default
        for _ in range(N_REPEATS):
            function()
        return self.clock.stop() / N_REPEATS


def torch_product():
    try:
        import torch

        a, b = (torch.randn(SIZE, SIZE, device="cuda").half() for _ in range(2))
    except Exception:
        return None
    result = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=result)


def cupy_product():
    try:
        import cupy

        a, b = (cupy.random.randn(SIZE, SIZE, dtype="f").astype("e") for _ in range(2))
        result = cupy.empty_like(a)
        cupy.matmul(a, b, out=result)
    except Exception:
        return None
    return lambda: cupy.matmul(a, b, out=result)
