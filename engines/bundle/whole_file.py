"""Files that are written whole or not at all."""

import contextlib
import errno
import functools
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from .folder_lock import locked_now

__all__ = ["write_whole"]

_ASIDE = re.compile(r"\.sdengine-[0-9a-f]{16}\.partial")


@contextlib.contextmanager
def write_whole(file: Path, *, mode: int = 0o666, sync: bool = True) -> Iterator[Path]:
    """Yield a new file beside ``file``; it replaces ``file`` when the block ends well, else it is removed.

    Several processes may write the same file at once; the last to end well wins. What a killed process left in the
    folder is removed: it holds no lock on it any more.

    Args:
        file: what is to be written; what a link points to is replaced, not the link.
        mode: its permissions, before the user's mask.
        sync: wait until the content is on the disk, so that the file is whole even after a power cut.

    Raises:
        OSError: the folder cannot be written to, or is full, or a folder or a device has the name.

    """
    file = Path(os.path.realpath(file))
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, and is not replaced")
    _remove_left(file.parent)
    aside, descriptor = _locked_file(file.parent, mode)
    try:
        yield aside
        if sync:
            os.fsync(descriptor)
        aside.replace(file)
    finally:
        os.close(descriptor)
        aside.unlink(missing_ok=True)


def _locked_file(folder: Path, mode: int) -> tuple[Path, int]:
    """Make a file and lock it."""
    while True:
        aside = folder / f".sdengine-{secrets.token_hex(8)}.partial"
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        locked_now(descriptor)
        if os.fstat(descriptor).st_nlink:  # else another process removed it as a dead one's before it was locked
            return aside, descriptor
        os.close(descriptor)


@functools.lru_cache(maxsize=64)
def _remove_left(folder: Path) -> None:
    """Remove what killed processes left; done once in the life of a process."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if _ASIDE.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                descriptor = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    if locked_now(descriptor, unsupported=False):
                        (folder / name).unlink()
                finally:
                    os.close(descriptor)
