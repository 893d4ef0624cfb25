"""The LoRAs of a call and their strengths: the pipeline's, or the call's own."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.bundle.bundle import Bundle
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
from .lora_folder import LoraFolder

if TYPE_CHECKING:
    from .prompt import TextualInversion

__all__ = ["LoraSet", "LoraSources"]


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
            UsageError: a source is neither a file nor a pair, or its name that of several.

        """
        named = [(None if folder is None else folder.find(str(p)), p, strength) for p, strength in sources_of(sources)]
        return cls(tuple((file or path, strength) for file, path, strength in named), scale)

    @property
    def key(self) -> Hashable:
        """Identifies these LoRAs, and the state of their files."""
        return (self.recipe, self.stamps) if self.sources else ()

    @property
    def recipe(self) -> Hashable:
        """Identifies files and strengths by what they are called."""
        if not self.sources:
            return ()
        return self.scale, tuple((str(path), repr(strength)) for path, strength in self.sources)

    @property
    def numbers(self) -> list[float]:
        """The strengths of all components, scaled; those of blocks are not among them."""
        each = (s.values() if isinstance(s, Mapping) else [s] for _, s in self.sources)
        return [self.scale * n for numbers in each for n in numbers if isinstance(n, (int, float))]

    @property
    def stamps(self) -> "tuple[Stamp | None, ...]":
        """When each file was last written and its size, or None where it is gone."""
        return tuple(_stamp(path) for path, _ in self.sources)


Stamp = tuple[int, int]


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class LoraSet:
    """LoRAs that have been read.

    Attributes:
        sources: what they were read from.
        stamps: of the files when they were read.
        loras: each with the user's strength, and that resolved for the bundle's networks.

    """

    sources: LoraSources = field(default_factory=LoraSources)
    stamps: tuple[Stamp | None, ...] = ()
    loras: tuple[tuple[Lora, Strength, Strengths], ...] = ()

    @classmethod
    def read(cls, sources: LoraSources, bundle: Bundle) -> "LoraSet":
        """Read the files against a bundle's networks.

        Raises:
            UsageError: a file is for other networks, or holds what cannot be applied.
            CheckpointError: a file is damaged.

        """
        stamps = sources.stamps
        networks: Networks = networks_of(bundle) if sources.sources else {}
        loras = [
            (lora, s, strengths.times(sources.scale)) for lora, s, strengths in read_loras(sources.sources, networks)
        ]
        return cls(sources, stamps, tuple(loras))

    def are(self, sources: LoraSources) -> bool:
        """Whether these were read from such sources, and no file has changed since; one that is gone has not."""
        if self.sources.recipe != sources.recipe:
            return False
        return all(now in (None, then) for now, then in zip(sources.stamps, self.stamps, strict=True))

    def over(self, bundle: Bundle, *, check: bool) -> Bundle:
        """Return the bundle with these over its weights; see :func:`~sdengine.engines.lora.with_loras`."""
        return with_loras(bundle, [(lora, strengths) for lora, _, strengths in self.loras], check=check)

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
                "scale": self.sources.scale,
                "kinds": list(lora.kinds),
                "weights": {n: sum(c.network == n for _, c in lora.changes) for n in lora.networks},
            }
            for lora, strength, _ in self.loras
        ]
