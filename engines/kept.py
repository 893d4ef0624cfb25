"""What an engine made of a graph, kept in the bundle for the next start on this machine.

Not part of the bundle: no manifest lists it, it may be deleted, and one made elsewhere or of something else is passed
over. A file is one line of JSON, which says what it was made from and the hash of the rest, and the rest. It is
written aside and renamed, so that processes that start at the same time do not harm each other, and it is read once:
the bytes whose hash is compared are those that are used.
"""

import contextlib
import functools
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from .bundle import Bundle
from .whole_file import write_whole

__all__ = ["LIMIT", "Kept", "processor"]

LIMIT = 64 * 2**20
"""Bytes of what is kept at most. Compiled forms of large networks hold a second copy of their weights, and reading
that takes about as long as compiling."""

_FOLDER = "cache"
_FORMAT = "2"
"""Raised when what is kept would be made otherwise now: of the same graph, by the same library."""
_HEAD = 2**14
"""Bytes that the first line has at most."""
_FORMS = 8
"""How many forms of a component are kept for an engine."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    made_from: dict[str, str]
    sha256: str


@functools.cache
def processor() -> str:
    """Name the processor and what it can do: compiled forms are of its instructions."""
    told = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "flags", "Features")):
                told.append(line)
            elif not line.strip():
                break  # the first core stands for all
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


class Kept:
    """The compiled form of one component for one engine.

    Args:
        bundle: the bundle.
        component: which component.
        graph: name of its graph's file, which has been compared with its hash.
        engine: name of the engine.
        settings: everything else that the form depends on: the library's version, precision, threads.

    Attributes:
        notes: why nothing could be kept, or why what was kept is not used.

    """

    def __init__(self, bundle: Bundle, component: str, graph: str, *, engine: str, settings: Mapping[str, str]) -> None:
        self.notes: list[str] = []
        self._component = component
        files = bundle.manifest.files
        weights = bundle.manifest.networks[bundle.component(component).network].weights
        self._worth = files[weights].bytes <= LIMIT
        self._made_from = {
            "format": _FORMAT,
            "engine": engine,
            "component": component,
            "graph": files[graph].sha256,
            "weights": files[weights].sha256,
            "processor": processor(),
            **settings,
        }
        text = msgspec.json.encode(self._made_from, order="deterministic")
        name = f"{component}-{hashlib.sha256(text).hexdigest()[:20]}"
        self._file = bundle.path / _FOLDER / engine / name

    def read(self) -> memoryview | None:
        """Return the compiled form, or None where there is none that can be trusted.

        It may be written to, and is not copied: some libraries compute with what lies in it.
        """
        if not self._worth:
            return None
        try:
            content = np.fromfile(self._file, np.uint8).data
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.notes.append(f"{self._file.name} cannot be read and was not used: {error.strerror}")
            return None
        head = bytes(content[:_HEAD]).partition(b"\n")[0]
        body = content[len(head) + 1 :]
        try:
            record = msgspec.json.decode(head, type=_Record)
        except msgspec.DecodeError:
            record = None
        if record is None or record.made_from != self._made_from or record.sha256 != hashlib.sha256(body).hexdigest():
            self.notes.append(f"{self._file.name} in {_FOLDER}/ is damaged; it was not used and is made again")
            return None
        return body

    def write(self, body: bytes) -> None:
        """Keep the compiled form, unless it is large; where that fails, note it."""
        if not self._worth or len(body) > LIMIT:
            return
        record = _Record(made_from=self._made_from, sha256=hashlib.sha256(body).hexdigest())
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(self._file) as aside:
                aside.write_bytes(b"".join((msgspec.json.encode(record), b"\n", body)))
        except OSError as error:
            self.notes.append(f"the bundle cannot be written to, so the next start compiles again: {error.strerror}")
        else:
            self._forget_old()

    def wanted(self) -> bool:
        """Whether a compiled form would be kept at all."""
        return self._worth

    def _forget_old(self) -> None:
        """Remove forms of this component that were made for older versions or other machines, but for a few."""
        with contextlib.suppress(OSError):  # another process may be doing the same
            forms = sorted(self._file.parent.glob(f"{self._component}-*"), key=lambda f: f.stat().st_mtime)
            for old in forms[:-_FORMS]:
                old.unlink()
