"""What can go wrong, as one tree.

::

    SdengineError                 exit status 1
    ├── UsageError                exit status 2: an argument or a request that cannot be met
    │   └── LoraError               weights cannot be made with these LoRAs; no other engine is tried
    ├── CheckpointError           the checkpoint is missing, incomplete or of an unknown family
    ├── ExportError               a component could not be traced, written or verified
    ├── BundleError               the bundle is missing or of another schema, or does not hold what is requested
    │   └── DamagedBundleError      a file of it is not what was exported; no other engine is tried
    └── EngineError               an engine could not be opened, built or run
        ├── EngineUnavailableError  the library, driver or hardware it needs is not here
        └── NonFiniteError        a network produced NaN or infinity
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BundleError",
    "CheckpointError",
    "DamagedBundleError",
    "EngineError",
    "EngineUnavailableError",
    "ExportError",
    "LoraError",
    "NonFiniteError",
    "SdengineError",
    "UsageError",
    "nearest",
]


class SdengineError(Exception):
    """Base of every error this library raises on purpose; its text says what happened and how to fix it."""

    exit_status = 1


class UsageError(SdengineError, ValueError):
    """An argument or a request that cannot be met."""

    exit_status = 2


class LoraError(UsageError):
    """Weights cannot be made with these LoRAs, whatever the engine."""


class CheckpointError(SdengineError):
    """The checkpoint is missing, incomplete or of an unknown family."""


class ExportError(SdengineError):
    """A component could not be traced, written or verified."""


class BundleError(SdengineError):
    """The bundle is missing or of another schema, or does not hold what is requested."""


class DamagedBundleError(BundleError):
    """A file of the bundle is missing, unreadable, or not what was exported; no other engine is tried."""


class EngineError(SdengineError):
    """An engine could not be opened, built or run."""


class EngineUnavailableError(EngineError):
    """The library, driver or hardware that an engine needs is not here."""


class NonFiniteError(EngineError):
    """A network produced NaN or infinity."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    close = difflib.get_close_matches(str(name)[:200], list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
