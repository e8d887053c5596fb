"""Driver context of one GPU, which all libraries of a process share, and its streams."""

import time
from collections.abc import Callable
from threading import get_ident

from numbanet.cuda.driver.calls import bindings, checked, error_of

SPINNING, NAP = 2e-3, 5e-5  # seconds of a wait before it sleeps, and of a sleep
DEFAULT_STREAM = 1  # CU_STREAM_LEGACY, in __cuda_array_interface__ and DLPack too


class DriverContext:
    """Context of one GPU for calls of the driver, which leaves the thread's own one as it was.

    Where a thread has none, that of the first GPU stays current: CUDA's runtime, too, begins there.

    Work is queued on one stream. It is CUDA's default stream at first, on which PyTorch and CuPy
    queue too unless told otherwise, so that arrays pass between them without waiting. A thread that
    captures a graph queues on a stream of its own meanwhile; the others stay on the common one.
    """

    def __init__(self, handle, ordinal: int):
        self.ordinal = ordinal
        self._driver = bindings()
        self._context = checked(self._driver.cuDevicePrimaryCtxRetain(handle))
        self._context_number = int(self._context)
        self._stays = ordinal == 0  # current where none was
        self._common_stream = self._driver.CUstream(DEFAULT_STREAM)
        self._capture = None  # thread that captures a graph, and its stream
        self._patience = None

    def _enter(self) -> bool:
        """Make the context current for this thread; returns whether it has to be left."""
        current = int(self._driver.cuCtxGetCurrent()[1])
        if current == self._context_number:
            return False
        if current == 0 and self._stays:
            checked(self._driver.cuCtxSetCurrent(self._context))
            return False
        checked(self._driver.cuCtxPushCurrent(self._context))
        return True

    def _leave(self) -> None:
        self._driver.cuCtxPopCurrent()

    def _call(self, name: str, *arguments, doing: str = ""):
        """Call a driver function in the current context; returns its value."""
        entered = self._enter()
        try:
            return checked(getattr(self._driver, name)(*arguments), doing)
        finally:
            if entered:
                self._leave()

    @property
    def _is_capturing(self) -> bool:
        """Whether this thread captures a graph."""
        capture = self._capture
        return capture is not None and capture[0] == get_ident()

    @property
    def _stream(self):
        """Stream on which this thread queues."""
        capture = self._capture
        if capture is None or capture[0] != get_ident():
            return self._common_stream
        return capture[1]

    @property
    def stream(self) -> int:
        """Address of the stream on which work is queued; 1 for CUDA's default stream.

        With another library's stream set here, work for both is done in the order it was queued.
        """
        return int(self._stream)

    @stream.setter
    def stream(self, address: int) -> None:
        address = address or DEFAULT_STREAM
        self.order(self.stream, address)
        self._common_stream = self._driver.CUstream(address)

    def order(self, first: int, second: int) -> None:
        """Make work queued on the second stream from now on wait for the first one's work."""
        first, second = first or DEFAULT_STREAM, second or DEFAULT_STREAM
        if first == second:
            return
        driver = self._driver
        event = self._call("cuEventCreate", driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        self._call("cuEventRecord", event, driver.CUstream(first))
        self._call("cuStreamWaitEvent", driver.CUstream(second), event, 0)
        self._call("cuEventDestroy", event)  # which takes effect when it has happened

    def wait_at_most(self, seconds: float, overdue: Callable[[], None]) -> None:
        """Make every wait for the stream call a function, which raises, after so many seconds."""
        self._patience = seconds, overdue

    def synchronize(self) -> None:
        """Wait for all queued work.

        Raises:
            LaunchError: a kernel failed.
        """
        if self._patience is not None:
            self._wait(*self._patience)
        self._call("cuStreamSynchronize", self._stream)

    def _wait(self, seconds: float, overdue: Callable[[], None]) -> None:
        begun = time.monotonic()
        while not self._is_done():
            waited = time.monotonic() - begun
            if waited > seconds:
                overdue()
            if waited > SPINNING:
                time.sleep(NAP)

    def _is_done(self) -> bool:
        entered = self._enter()
        try:
            (code,) = self._driver.cuStreamQuery(self._stream)
        finally:
            if entered:
                self._leave()
        if code == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if code:
            raise error_of(code)
        return True

    def synchronize_all(self) -> None:
        """Wait for all streams, those of other libraries included."""
        self._call("cuCtxSynchronize")
