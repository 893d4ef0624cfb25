"""A folder whose LoRAs can be named, in requests and in prompts."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..engines.errors import UsageError, nearest
from ..engines.lora import FOLDER_CONFIG

__all__ = ["LoraFolder"]

_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")


class LoraFolder:
    """A folder whose LoRAs can be named: files, and folders of PEFT, at any depth; hidden ones have no names.

    The name of ``people/ann.safetensors`` is ``ann``. Where another is called so, it is ``people/ann``, or with its
    ending. The longer ones can always be used.

    Args:
        path: the folder.

    Raises:
        UsageError: there is no such folder.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not os.path.isdir(self.path):  # false, too, of a name that the system refuses
            raise UsageError(f"there is no folder {self.path} with LoRAs")

    def names(self) -> list[str]:
        """Return the shortest name of each LoRA, as they are now."""
        known = self._by_name()
        shortest: dict[Path, str] = {}
        for name in sorted(known, key=lambda name: (len(name), name)):
            if len(known[name]) == 1:
                shortest.setdefault(known[name][0], name)
        return sorted(shortest.values())

    def find(self, name: str) -> Path | None:
        """Return the LoRA of a name, or None.

        Raises:
            UsageError: several have it.

        """
        paths = self._by_name().get(name, [])
        if len(paths) > 1:
            longer = ", ".join(path.relative_to(self.path).as_posix() for path in paths)
            raise UsageError(f"there are several LoRAs {name!r} in {self.path}: {longer}; name one of these")
        return paths[0] if paths else None

    def name_in(self, text: str) -> str:
        """Return the longest name with which a text begins, before a colon or its end: names may have colons, too.

        Where there is none, what is before the first colon.
        """
        names = (name for name in self._by_name() if f"{text}:".startswith(f"{name}:"))
        return max(names, key=len, default=text.partition(":")[0])

    def file(self, name: str) -> Path:
        """Return the LoRA of a name.

        Raises:
            UsageError: there is none, or several have the name.

        """
        path = self.find(name)
        if path is None:
            raise UsageError(f"there is no LoRA {name!r} in {self.path}{nearest(name, self.names())}")
        return path

    def _by_name(self) -> dict[str, list[Path]]:
        """Return which LoRAs a name can mean: its path counts before its last part alone."""
        known: tuple[dict[str, list[Path]], ...] = ({}, {}, {})
        for path in self._paths():
            inside = path.relative_to(self.path)
            plain = inside if path.is_dir() else inside.with_suffix("")
            for by_name, name in zip(known, (inside.as_posix(), plain.as_posix(), plain.name), strict=True):
                by_name.setdefault(name, []).append(path)
        whole, without_ending, last = known
        return last | without_ending | whole

    def _paths(self) -> Iterator[Path]:
        for folder, inside, files in os.walk(self.path):
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            if FOLDER_CONFIG in files and Path(folder) != self.path:
                inside.clear()
                yield Path(folder)
                continue
            for name in sorted(files):
                if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                    yield Path(folder, name)
