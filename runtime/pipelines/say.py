"""What a user of the front door is told: by Python's logging, as diffusers does, each thing once."""

import logging
import sys

__all__ = ["note", "progress"]

_LOGGER = logging.getLogger("sdengine")
_SAID: set[str] = set()
_MOST = 10_000


def note(text: str) -> None:
    """Log a warning; the same text is logged once in the life of the process."""
    if text not in _SAID and len(_SAID) < _MOST:
        _SAID.add(text)
        _LOGGER.warning(text)


def progress(line: str) -> None:
    """Print a line of long work to standard error."""
    print(line, file=sys.stderr, flush=True)
