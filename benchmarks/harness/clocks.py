"""Seconds between two moments: measured by the GPU, or by the wall clock."""

import time


class Clock:
    """Seconds between two moments of a stream, measured by the GPU."""

    def __init__(self, stream):
        from numbanet.cuda.driver.calls import bindings, checked, handle_of

        self.checked = checked
        self.driver = bindings()
        self.context = checked(self.driver.cuDevicePrimaryCtxRetain(handle_of(0)))
        self.stream = self.driver.CUstream(stream)
        self.first, self.last = (self.call("cuEventCreate", 0) for _ in range(2))

    def call(self, name, *args):
        self.checked(self.driver.cuCtxPushCurrent(self.context))
        try:
            return self.checked(getattr(self.driver, name)(*args))
        finally:
            self.driver.cuCtxPopCurrent()

    def start(self):
        self.call("cuEventRecord", self.first, self.stream)

    def stop(self):
        """Wait for what was queued and return the seconds since start()."""
        self.call("cuEventRecord", self.last, self.stream)
        self.call("cuEventSynchronize", self.last)
        return 1e-3 * self.call("cuEventElapsedTime", self.first, self.last)


class WallClock:
    """The same for a method without a stream that is known; it must have been waited for."""

    def start(self):
        self.started = time.perf_counter()

    def stop(self):
        return time.perf_counter() - self.started
