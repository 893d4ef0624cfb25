"""Collects what a builder reports: warnings, errors, memory and progress."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Messages", "Progress", "logger_for", "monitor_for"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done and their number."""

# Logged once for each int64 input. Buffers are made from the spec, where those inputs are int64 as well.
_EXPECTED = re.compile(r"Make sure input \S+ has Int64 binding")
_ACTIVATION = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(kw_only=True)
class Messages:
    """What a library logged during a build.

    Attributes:
        warnings: without repetitions.
        errors: in order.
        activation: bytes of scratch memory at the largest shapes, or None where the library did not report it.
        weights: bytes of weights in the plan, or None.
        stopped_by: what the progress callback, or a signal's handler, raised.

    """

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    activation: int | None = None
    weights: int | None = None
    stopped_by: BaseException | None = None

    def take(self, severity: str, text: str) -> None:
        """Add a message; ``severity`` is the library's name for it."""
        text = text.strip()
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text)
        elif severity == "WARNING":
            if text not in self.warnings and not _EXPECTED.search(text):
                self.warnings.append(text)
        elif match := _ACTIVATION.search(text):
            self.activation = max(int(match[1]), self.activation or 0)
        elif match := _WEIGHTS.search(text):
            self.weights = max(int(match[1]), self.weights or 0)


def logger_for(library: Any, messages: Messages) -> Any:
    """Return an ``ILogger`` of the library that fills ``messages``."""

    class Logger(library.ILogger):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # pybind11 wants its own initialiser called by name

        def log(self, severity: Any, text: str) -> None:
            messages.take(severity.name, text)

    return Logger()


def monitor_for(library: Any, progress: Progress, messages: Messages) -> Any:
    """Return an ``IProgressMonitor`` that passes on phases and their steps.

    An exception must not travel through the library's own threads: it stops the build, and the caller finds it in
    ``messages.stopped_by``.
    """

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return messages.stopped_by is None

        def phase_finish(self, phase: str) -> None:
            self._report(phase, self.steps.get(phase, 0))

        def _report(self, phase: str, done: int) -> None:
            if messages.stopped_by is not None:
                return
            try:
                progress(phase, done, self.steps.get(phase, 0))
            except BaseException as error:
                messages.stopped_by = error

    return Monitor()
