"""Many requests at once: a worker that batches at every evaluation, and a server around it.

The worker alone is for those who embed it in a program of their own; ``sdengine serve`` is :mod:`~.server`.
"""

from .failures import CancelledError, ClosedError, DeadlineError, QueueFullError, ServeError, WorkerDiedError
from .policy import POLICIES
from .ticket import Finished, Outcome, Preview, Progress, Ticket
from .worker import Status, Worker

__all__ = [
    "POLICIES",
    "CancelledError",
    "ClosedError",
    "DeadlineError",
    "Finished",
    "Outcome",
    "Preview",
    "Progress",
    "QueueFullError",
    "ServeError",
    "Status",
    "Ticket",
    "Worker",
    "WorkerDiedError",
]
