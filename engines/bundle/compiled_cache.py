"""What an engine made of a graph, cached for the next start on this machine.

It lies in the user's own cache folder, see :mod:`.user_cache`, never in the bundle: it decides which native code runs,
and whoever could write it there would choose that code. It may be deleted; that costs time only. A file is one line of
JSON, which says what it was made from and the hash of the rest, and the rest. The hash finds damage; it is no proof of
where the file came from, which the rights of the folder are. The bytes whose hash is compared are those that are used.
"""

import contextlib
import functools
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .bundle import Bundle
from .user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached

__all__ = ["LIMIT", "Kept", "processor"]

LIMIT = 64 * 2**20
"""Bytes of what is cached at most. Compiled forms of large networks hold a second copy of their weights, and reading
that takes about as long as compiling."""

_FORMAT = "3"
"""Raised when what is kept would be made otherwise now: of the same graph, by the same library."""
_HEAD = 2**14
"""Bytes that the first line has at most."""
_FORMS, _TOTAL = 256, 2**30
"""How many files, and bytes, are cached for an engine, of all bundles; those used longest ago are removed."""


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
        manifest = bundle.manifest
        network = bundle.component(component).network
        self._worth = manifest.files[manifest.networks[network].weights].bytes <= LIMIT
        self._made_from = {
            "format": _FORMAT,
            "engine": engine,
            "component": component,
            # Of the bytes that are used, not what the manifest says of them.
            "graph": bundle.checks.check(graph, bundle.file(graph)),
            "weights": bundle.weights(network).identity,
            "processor": processor(),
            **settings,
        }
        text = msgspec.json.encode(self._made_from, order="deterministic")
        name = f"{component}-{hashlib.sha256(text).hexdigest()[:32]}"
        self.file: Path | None = None
        if self._worth:
            try:
                self.file = cached_file("compiled", engine, name)
            except CacheUnusableError as error:
                self.notes.append(f"the next start compiles again: {error}")

    def read(self) -> memoryview | None:
        """Return the compiled form, or None where there is none that can be trusted.

        It may be written to, and is not copied: some libraries compute with what lies in it.
        """
        if self.file is None:
            return None
        try:
            content = read_cached(self.file)
        except CacheUnusableError as error:
            self.notes.append(f"compiled again: {error}")
            return None
        if content is None:
            return None
        head = bytes(content[:_HEAD]).partition(b"\n")[0]
        body = content[len(head) + 1 :]
        try:
            record = msgspec.json.decode(head, type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            record = None
        if record is None or record.made_from != self._made_from or record.sha256 != hashlib.sha256(body).hexdigest():
            self.notes.append(f"{self.file} is damaged; it was not used and is made again")
            return None
        with contextlib.suppress(OSError):
            self.file.touch()  # what was used last is removed last
        return body

    def write(self, body: bytes) -> None:
        """Cache the compiled form, unless it is large; where that fails, note it."""
        if self.file is None or len(body) > LIMIT:
            return
        record = _Record(made_from=self._made_from, sha256=hashlib.sha256(body).hexdigest())
        try:
            write_cached(self.file, b"".join((msgspec.json.encode(record), b"\n", body)))
        except CacheUnusableError as error:
            self.notes.append(f"the next start compiles again: {error}")
        else:
            prune(self.file.parent, "*-*", files=_FORMS, size=_TOTAL)

    def wanted(self) -> bool:
        """Whether a compiled form would be cached at all."""
        return self._worth
