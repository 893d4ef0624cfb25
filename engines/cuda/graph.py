"""CUDA graphs: launches that are captured once and replayed with one call."""

import contextlib
from collections.abc import Callable
from typing import Any

from ..errors import EngineError
from .driver import cuda, driver_call

__all__ = ["CudaGraph", "captured_graph"]


class CudaGraph:
    """An executable graph; destroyed with the last reference."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: Any) -> None:
        """Put it into a stream."""
        driver_call("cuGraphLaunch", self._executable, stream)

    def close(self) -> None:
        """Destroy it; calling it twice is harmless."""
        executable, self._executable = self._executable, None
        if executable is not None:
            driver_call("cuGraphExecDestroy", executable)

    def __del__(self) -> None:
        with contextlib.suppress(EngineError):  # the context is gone, and the graph with it
            self.close()


def captured_graph(stream: Any, work: Callable[[], None]) -> CudaGraph:
    """Capture what ``work`` puts into a stream. Thread-local: other threads may allocate without spoiling it.

    Raises:
        EngineError: the work failed, or does something that cannot be captured.

    """
    driver_call("cuStreamBeginCapture", stream, cuda().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    try:
        work()
    except BaseException:
        # The capture is ended in any case, or the stream stays unusable; the work's error is the one to tell.
        _, graph = cuda().cuStreamEndCapture(stream)
        if graph is not None and int(graph):
            cuda().cuGraphDestroy(graph)
        raise
    graph = driver_call("cuStreamEndCapture", stream)
    try:
        return CudaGraph(driver_call("cuGraphInstantiate", graph, 0))
    finally:
        driver_call("cuGraphDestroy", graph)
