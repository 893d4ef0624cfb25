"""Locks, so that builds at the same time do not harm each other."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..bundle.bundle import MANIFEST, Bundle
from ..bundle.manifest import Manifest, manifest_text
from ..bundle.whole_file import write_whole
from ..errors import EngineError

__all__ = ["locked", "rewrite_manifest"]


@contextlib.contextmanager
def locked(folder: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold a folder for this process; the lock ends with the block or with the process, and leaves no file.

    Yields whether the locked folder still has that name: the process that held it before may have removed it.

    Args:
        folder: an existing folder.
        waiting: called once if another process holds it.

    Raises:
        EngineError: this system has no such locks.

    """
    try:
        import fcntl
    except ImportError as error:
        raise EngineError("building engines needs flock, which this system lacks; build on Linux") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
    finally:
        os.close(descriptor)


def rewrite_manifest(path: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Change a bundle's manifest: read, change and replace it while no other process does."""
    with locked(path):
        manifest = change(Bundle(path).manifest)
        with write_whole(path / MANIFEST) as partial:
            partial.write_bytes(manifest_text(manifest))
