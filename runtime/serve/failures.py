"""Why a request of a worker ends without images; a part of the error tree of :mod:`sdengine.engines.errors`.

::

    SdengineError
    └── ServeError
        ├── QueueFullError      too many requests wait; ``retry_after`` says when to come again
        ├── CancelledError      the caller cancelled it, or has gone
        ├── DeadlineError       its time was over before its images were done
        ├── ClosedError         the worker takes no requests any more
        └── WorkerDiedError     the worker's thread ended by an error
"""

from ...engines.errors import SdengineError

__all__ = ["CancelledError", "ClosedError", "DeadlineError", "QueueFullError", "ServeError", "WorkerDiedError"]


class ServeError(SdengineError):
    """A worker did not see a request through."""


class QueueFullError(ServeError):
    """Too many requests wait already.

    Attributes:
        retry_after: seconds after which there is likely to be room.

    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CancelledError(ServeError):
    """The caller cancelled the request, or has gone."""


class DeadlineError(ServeError):
    """The request's time was over before its images were done."""


class ClosedError(ServeError):
    """The worker takes no requests any more, or was closed before the request was done."""


class WorkerDiedError(ServeError):
    """The worker's thread ended by an error; nothing that it was asked for can be done."""
