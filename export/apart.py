"""Checks that a bundle's folder and its sources do not overlap."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..engines.errors import UsageError

__all__ = ["check_apart"]


def check_apart(output: str | Path, sources: Iterable[object]) -> None:
    """Check that writing ``output`` cannot touch what is read.

    Args:
        output: the folder to write.
        sources: folders and files that are read; what is no path of something that exists is left out.

    Raises:
        UsageError: the output is one of them, contains one or is inside one.

    """
    target = os.path.realpath(output)
    above = _identities(target)
    for source in sources:
        if not isinstance(source, str | Path) or not os.path.exists(path := os.path.expanduser(source)):
            continue
        read = os.path.realpath(path)
        own, target_is = _identity(read), _identity(target)
        if own in above:
            where = "is" if target_is == own else "lies in"
        elif target_is is not None and target_is in _identities(read):
            where = "holds"
        else:
            continue
        raise UsageError(f"{output} {where} {source}, which is read; write the bundle somewhere else")


def _identities(path: str) -> set[tuple[int, int] | None]:
    """Return the identities (device and inode) of a path and of the folders above it."""
    identities = {_identity(path)}
    while (parent := os.path.dirname(path)) != path:
        path = parent
        identities.add(_identity(path))
    return identities - {None}


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
