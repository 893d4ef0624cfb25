"""The LoRAs of a call and their strengths: the pipeline's, or the call's own."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.bundle.bundle import Bundle
from ..engines.errors import UsageError, nearest
from ..engines.lora import (
    Lora,
    LoraSource,
    Networks,
    Strength,
    Strengths,
    networks_of,
    read_loras,
    sources_of,
    with_loras,
)

if TYPE_CHECKING:
    from .prompt import TextualInversion

__all__ = ["LoraFolder", "LoraSet", "LoraSources"]

_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")


class LoraFolder:
    """A folder whose files can be named without their endings.

    Args:
        path: the folder; those inside it belong to it.

    Raises:
        UsageError: there is no such folder.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise UsageError(f"there is no folder {self.path} with LoRAs")

    def names(self) -> dict[str, Path]:
        """Return the files by their names, as they are now; of two with one name the first counts."""
        files: dict[str, Path] = {}
        for file in sorted(self.path.rglob("*")):
            if file.suffix in _SUFFIXES and file.is_file():
                files.setdefault(file.stem, file)
        return files

    def file(self, name: str) -> Path:
        """Return the file of a name.

        Raises:
            UsageError: there is none.

        """
        names = self.names()
        if name not in names:
            raise UsageError(f"there is no LoRA {name!r} in {self.path}{nearest(name, names)}")
        return names[name]


@dataclass(frozen=True)
class LoraSources:
    """Files and strengths, not read yet.

    Attributes:
        sources: in the order in which they are added.
        scale: factor of all strengths.

    """

    sources: tuple[tuple[Path, Strength], ...] = ()
    scale: float = 1.0

    @classmethod
    def of(cls, sources: Sequence[LoraSource], folder: LoraFolder | None, scale: float = 1.0) -> "LoraSources":
        """Resolve names of a folder.

        Raises:
            UsageError: a source is neither a file nor a pair.

        """
        names = {} if folder is None else folder.names()
        return cls(tuple((names.get(str(path), path), strength) for path, strength in sources_of(sources)), scale)

    @property
    def key(self) -> Hashable:
        """Identifies these LoRAs, and the state of their files."""
        if not self.sources:
            return ()
        return self.scale, tuple((str(path), _stamp(path), repr(strength)) for path, strength in self.sources)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class LoraSet:
    """LoRAs that have been read.

    Attributes:
        key: of the sources that they were read from.
        loras: each with the user's strength, and that resolved for the bundle's networks.
        scale: factor of all strengths, which is applied already.

    """

    key: Hashable = ()
    loras: tuple[tuple[Lora, Strength, Strengths], ...] = ()
    scale: float = 1.0

    @classmethod
    def read(cls, sources: LoraSources, bundle: Bundle) -> "LoraSet":
        """Read the files against a bundle's networks.

        Raises:
            UsageError: a file is for other networks, or holds what cannot be applied.
            CheckpointError: a file is damaged.

        """
        key = sources.key
        networks: Networks = networks_of(bundle) if sources.sources else {}
        loras = [
            (lora, s, strengths.times(sources.scale)) for lora, s, strengths in read_loras(sources.sources, networks)
        ]
        return cls(key, tuple(loras), sources.scale)

    def over(self, bundle: Bundle) -> Bundle:
        """Return the bundle with these over its weights."""
        return with_loras(bundle, [(lora, strengths) for lora, _, strengths in self.loras])

    @property
    def notes(self) -> list[str]:
        """What a user should know of them."""
        return [note for lora, _, _ in self.loras for note in lora.notes]

    @property
    def words(self) -> "list[TextualInversion]":
        """The words that they bring, whatever their strengths."""
        if not any(lora.embeddings for lora, _, _ in self.loras):
            return []
        from .prompt import inversions_in_lora

        return [word for lora, _, _ in self.loras for word in inversions_in_lora(lora.name, lora.embeddings)]

    @property
    def report(self) -> list[dict[str, Any]]:
        """What was applied, as JSON: name, SHA-256 of what was read, strength, kinds, and how many weights of which."""
        return [
            {
                "name": lora.name,
                "sha256": lora.sha256,
                "strength": strength,
                "scale": self.scale,
                "kinds": list(lora.kinds),
                "weights": {n: sum(c.network == n for _, c in lora.changes) for n in lora.networks},
            }
            for lora, strength, _ in self.loras
        ]
