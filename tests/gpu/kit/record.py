"""What a section writes down: checks that hold or do not, and figures, a line of JSON each, at once."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Record", "Skip"]


class Skip(Exception):  # noqa: N818 - it is no error
    """The section cannot be done here; the text says why."""


class Record:
    """A section's lines.

    Args:
        folder: of the report.
        section: the name.
        seconds: until the section is stopped.

    Attributes:
        images: where pictures go.
        failed: how many checks did not hold.

    """

    def __init__(self, folder: Path, section: str, seconds: float) -> None:
        self._file = folder / f"{section}.jsonl"
        self._file.write_text("")
        self._end = time.monotonic() + seconds
        self.images = folder / "images"
        self.images.mkdir(exist_ok=True)
        self.failed = 0

    @property
    def left(self) -> float:
        """Seconds until the section is stopped."""
        return self._end - time.monotonic()

    def _write(self, line: dict[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def figure(self, name: str, **values: Any) -> None:
        """Write what was measured."""
        self._write({"figure": name, **values})

    def skipped(self, name: str, reason: str) -> None:
        """Write what was not done, and why."""
        self._write({"skipped": name, "reason": reason})

    def failure(self, name: str, error: Exception, **figures: Any) -> None:
        """Write that something does not hold."""
        self.failed += 1
        said = (str(error).strip().splitlines() or [""])[0][:500]
        self._write({"check": name, "holds": False, "error": f"{type(error).__name__}: {said}", **figures})

    @contextmanager
    def check(self, name: str, **about: Any) -> Iterator[dict[str, Any]]:
        """Check something: an error in the body is a check that does not hold. The body may add figures."""
        figures: dict[str, Any] = dict(about)
        started = time.perf_counter()
        try:
            yield figures
        except Skip as skip:
            self.skipped(name, str(skip))
            return
        except Exception as error:
            traceback.print_exc()
            self.failure(name, error, **figures)
            return
        self._write({"check": name, "holds": True, "seconds": round(time.perf_counter() - started, 2), **figures})
