"""Opens files that a caller names: regular ones only, since a pipe waits for ever and a device has no end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_regular"]


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read bytes.

    Raises:
        OSError: there is none, it may not be read, or it is a folder, a pipe, a socket or a device.

    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
