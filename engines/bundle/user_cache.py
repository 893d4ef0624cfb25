"""The user's own cache folder: it may be deleted at any time, which costs only time.

It is ``$SDENGINE_CACHE``, else ``$XDG_CACHE_HOME/sdengine``, else ``~/.cache/sdengine``. What is read from it decides
which native code runs, so it is used only if nobody but the user can write there: folders and files of another owner,
or writable by a group or by others, are refused. A cache that cannot be used is a note, never a failure.
"""

import contextlib
import os
import stat
from pathlib import Path

import numpy as np

from .whole_file import write_whole

__all__ = ["CacheUnusableError", "cache_root", "cached_file", "prune", "read_cached", "write_cached"]

_WRITABLE_BY_OTHERS = 0o022


class CacheUnusableError(Exception):
    """The cache cannot be read or written; the text says why."""


def cache_root() -> Path:
    """Return the folder, which need not exist.

    Raises:
        CacheUnusableError: the user has no home.

    """
    if own := os.environ.get("SDENGINE_CACHE"):
        return Path(own).absolute()
    if (shared := os.environ.get("XDG_CACHE_HOME")) and Path(shared).is_absolute():  # the specification says so
        return Path(shared) / "sdengine"
    try:
        return Path.home() / ".cache" / "sdengine"
    except RuntimeError as error:
        raise CacheUnusableError("there is no home folder; set SDENGINE_CACHE") from error


def cached_file(*parts: str) -> Path:
    """Return the path of a file in the cache, after creating and checking the folders above it.

    Raises:
        CacheUnusableError: a folder cannot be made, or others could write there.

    """
    folder = cache_root()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for part in (None, *parts[:-1]):
            folder = folder if part is None else folder / part
            folder.mkdir(mode=0o700, exist_ok=True)
            _refuse_others(folder, folder.stat())
    except OSError as error:
        raise CacheUnusableError(f"{folder} cannot be used: {error.strerror}") from error
    return folder / parts[-1]


def read_cached(file: Path) -> memoryview | None:
    """Read a file that :func:`cached_file` named, or return None where there is none.

    The memory is writable: some libraries compute with the constants in it.

    Raises:
        CacheUnusableError: it cannot be read, is no regular file, or others could write it.

    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheUnusableError(f"{file} cannot be read: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)  # Python opens no folder as a file
        raise CacheUnusableError(f"{file} is no regular file")
    with open(descriptor, "rb", buffering=0) as stream:
        _refuse_others(file, status)
        try:
            return np.fromfile(stream, np.uint8).data
        except OSError as error:
            raise CacheUnusableError(f"{file} cannot be read: {error.strerror}") from error


def write_cached(file: Path, content: bytes) -> None:
    """Write a file that :func:`cached_file` named, whole or not at all.

    Raises:
        CacheUnusableError: it cannot be written.

    """
    try:
        with write_whole(file, mode=0o600, sync=False) as aside:  # a torn file is noticed when it is read
            aside.write_bytes(content)
    except OSError as error:
        raise CacheUnusableError(f"{file} cannot be written: {error.strerror}") from error


def prune(folder: Path, pattern: str, *, files: int, size: int) -> None:
    """Remove the files of a pattern that were used longest ago, beyond a number of files or of bytes."""
    with contextlib.suppress(OSError):  # another process may be doing the same
        cached = sorted(((f.stat(), f) for f in folder.glob(pattern)), key=lambda entry: -entry[0].st_mtime)
        total = 0
        for i, (status, file) in enumerate(cached):
            total += status.st_size
            if i >= files or total > size:
                file.unlink()


def _refuse_others(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise CacheUnusableError(f"{path} belongs to another user and is not used")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise CacheUnusableError(f"{path} can be written by other users and is not used; chmod go-w it")
