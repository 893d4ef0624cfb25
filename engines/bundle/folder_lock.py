"""Locks that end with their process and leave no file: ``flock`` on the file or folder itself."""

__all__ = ["locked_now"]


def locked_now(descriptor: int, *, shared: bool = False, unsupported: bool = True) -> bool:
    """Lock an open file or folder without waiting.

    Args:
        descriptor: the lock is held until it is closed, in this process and in those forked from it.
        shared: whether others may hold it beside this process, if they share it too.
        unsupported: what to return where there are no such locks: another system, or a file system of the network.

    Returns:
        Whether it is locked now; False if another process holds it.

    """
    try:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return unsupported
    return True
