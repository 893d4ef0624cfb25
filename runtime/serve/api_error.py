"""Errors as OpenAI's clients read them: a status, and a body with message, type, param and code."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from ...engines.errors import CheckpointError, NonFiniteError, SdengineError, UsageError
from .failures import CancelledError, ClosedError, DeadlineError, QueueFullError, WorkerDiedError

__all__ = ["ApiError", "api_error"]

_KINDS: Mapping[type[SdengineError], tuple[int, str, str | None]] = {
    UsageError: (400, "invalid_request_error", "invalid_value"),
    QueueFullError: (429, "rate_limit_error", "queue_full"),
    CancelledError: (499, "request_cancelled", "cancelled"),
    DeadlineError: (504, "timeout_error", "deadline_exceeded"),
    ClosedError: (503, "service_unavailable", "shutting_down"),
    WorkerDiedError: (503, "service_unavailable", "worker_died"),
    CheckpointError: (500, "server_error", "damaged_lora"),
    NonFiniteError: (422, "invalid_request_error", "not_finite"),
    SdengineError: (500, "server_error", "engine_error"),
}
"""What a request comes to, by the error that ended it; the first that fits."""
_NOT_AGAIN = (422, 499, 500, 504)
"""Statuses after which the same request would only do the same work again."""


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        message: what happened, and what would work.
        kind: OpenAI's ``type``.
        param: the field that is to blame, if one is.
        code: a short name for programs.
        headers: of the answer.

    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if status in _NOT_AGAIN:
            self.headers.setdefault("x-should-retry", "false")

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer, and of an event in a stream."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def api_error(error: SdengineError, fields: Collection[str] = ()) -> ApiError:
    """Return the answer to a request that ended by an error of ours.

    Args:
        error: the error.
        fields: names of fields; one that the message begins with is the ``param``.

    """
    status, kind, code = next(value for cls, value in _KINDS.items() if isinstance(error, cls))
    message = str(error)
    param = None
    if isinstance(error, UsageError):
        first = re.match(r"(?:unknown argument ')?([A-Za-z]\w*)", message)
        param = first[1] if first is not None and first[1] in fields else _solver_field(message)
    headers = {}
    if isinstance(error, QueueFullError):
        headers["retry-after"] = str(math.ceil(error.retry_after))
    elif status == 503:
        headers["retry-after"] = "5"
    return ApiError(status, message, kind=kind, param=param, code=code, headers=headers)


def _solver_field(message: str) -> str | None:
    """Return the field that an error of a solver is about: it calls neither by its name."""
    if message.startswith("unknown solver "):
        return "scheduler"
    return "scheduler_config" if re.match(r"\w+ has no option ", message) else None
