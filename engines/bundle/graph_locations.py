"""A graph's weights are beside it, in its network's file, which was compared with its hash, and nowhere else.

A graph names the file of each weight that lies outside it, and the libraries read whatever is named. This looks at
the bytes of the ONNX file without parsing it: ``StringStringEntryProto`` has the key in field 1, the value in field 2.
"""

import functools
import os
import re
from pathlib import Path

from ..errors import DamagedBundleError

__all__ = ["check_locations"]

_KEY = b"location"
_ENTRY = re.compile(rb"\n\x08location\x12")


def check_locations(graph: Path, weights: str) -> None:
    """Check that a graph names no other file than its network's weights.

    Args:
        graph: an ONNX file.
        weights: the name of the weights file, which lies beside it.

    Raises:
        DamagedBundleError: it names another file, or in a way that exports do not write.

    """
    status = graph.stat()
    _check(str(graph), weights, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


@functools.lru_cache(maxsize=256)
def _check(graph: str, weights: str, state: tuple[int, ...]) -> None:
    data = Path(graph).read_bytes()
    name = os.fsencode(weights)
    written = len(name).to_bytes(1, "little") + name
    for match in re.finditer(_KEY, data):
        entry = _ENTRY.match(data, match.start() - 2) if match.start() >= 2 else None
        if entry is None or not data.startswith(written, entry.end()):
            raise DamagedBundleError(
                f"{graph} names weights outside {weights}, as no export does; export the checkpoint again"
            )
