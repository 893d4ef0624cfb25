"""A file that others may overwrite while it is used: read bit by bit, or not at all once it has changed."""

import hashlib
import os
import threading
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .regular_file import open_regular

__all__ = ["HeldFile"]

_AT_ONCE = 1 << 20


class HeldFile:
    """A file, open until nothing uses it.

    One that is removed, or replaced by another of its name, can be read to its end; one that is written to, or cut
    off, is refused. It is not mapped: where a mapped file becomes shorter, the system ends the process that reads it.
    Several threads may read.

    Args:
        path: the file.

    Attributes:
        stream: it, for those who read its header, before threads read it.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = open_regular(path)
        self._closed_at_the_end = weakref.finalize(self, self.stream.close)
        self._lock = threading.Lock()
        self._stamp = _stamp(os.fstat(self.stream.fileno()))
        self._size = self._stamp[-1]

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Read some of its bytes.

        Raises:
            CheckpointError: it has changed since it was opened, or cannot be read.

        """
        if offset + size > self._size:
            raise CheckpointError(f"cannot read {self.path}: it ends before byte {offset + size}")
        try:
            with self._lock:
                self.stream.seek(offset)
                content = self.stream.read(size)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error
        self.check()
        return np.frombuffer(content, np.uint8)

    def sha256(self) -> str:
        """Return the hash of all its bytes.

        Raises:
            CheckpointError: as for :meth:`read`.

        """
        digest = hashlib.sha256()
        for start in range(0, self._size, _AT_ONCE):
            digest.update(self.read(start, min(_AT_ONCE, self._size - start)).data)
        return digest.hexdigest()

    def check(self, *, by_name: bool = False) -> None:
        """Refuse it if it has been written to since it was opened.

        Args:
            by_name: or if its name stands for another file now.

        Raises:
            CheckpointError: it has changed.

        """
        try:
            now = os.stat(self.path) if by_name else os.fstat(self.stream.fileno())
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error
        if _stamp(now) != self._stamp:
            raise CheckpointError(f"{self.path} was changed while it was read: use it when it has been written whole")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
