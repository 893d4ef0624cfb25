"""The LoRAs of a pipeline, by the names that diffusers' methods give them: which are loaded, active and fused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from .locate import located
from .say import progress

__all__ = ["Adapters", "adapter_file"]

Weight = float | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """LoRAs; every change makes another object.

    Attributes:
        files: of those that are loaded, by name.
        weights: of those that are active, by name.
        enabled: whether active ones are used.
        fused: files and weights that stay when what is loaded goes.
        fused_names: what those are called.

    """

    files: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Weight] = field(default_factory=dict)
    enabled: bool = True
    fused: tuple[tuple[Path, Weight], ...] = ()
    fused_names: tuple[str, ...] = ()

    @property
    def sources(self) -> list[tuple[Path, Weight]]:
        """What :meth:`~sdengine.runtime.pipeline.Pipeline.set_loras` takes."""
        own = [(self.files[n], w) for n, w in self.weights.items() if n not in self.fused_names] if self.enabled else []
        return [*self.fused, *own]

    def load(self, file: Path, name: str | None) -> "Adapters":
        """Add a LoRA; it alone is active then, as in diffusers."""
        taken = name or next(f"default_{i}" for i in range(len(self.files) + 1) if f"default_{i}" not in self.files)
        if taken in self.files:
            raise UsageError(f"adapter_name={taken!r} is loaded already: choose another name, or delete_adapters first")
        return replace(self, files={**self.files, taken: file}, weights={taken: 1.0}, enabled=True)

    def set(self, names: Any, weights: Any) -> "Adapters":
        """Say which are active, and how strong."""
        listed = [names] if isinstance(names, str) else list(names)
        given = list(weights) if isinstance(weights, (list, tuple)) else [weights] * len(listed)
        if len(given) != len(listed):
            raise UsageError(f"adapter_weights: {len(given)} given for {len(listed)} adapters")
        chosen = {self._known(n): 1.0 if w is None else w for n, w in zip(listed, given, strict=True)}
        return replace(self, weights=chosen, enabled=True)

    def delete(self, names: Any) -> "Adapters":
        """Take some away."""
        gone = [self._known(name) for name in ([names] if isinstance(names, str) else names)]
        files = {name: file for name, file in self.files.items() if name not in gone}
        return replace(self, files=files, weights={n: w for n, w in self.weights.items() if n not in gone})

    def unload(self) -> "Adapters":
        """Take all away but those that are fused."""
        return Adapters(fused=self.fused, fused_names=self.fused_names)

    def fuse(self, scale: float, names: Sequence[str] | None) -> "Adapters":
        """Let those that are active, or named, stay when the others go."""
        chosen = [self._known(name) for name in (self.weights if names is None else names)]
        fresh = [name for name in chosen if name not in self.fused_names]
        own = tuple((self.files[name], _scaled(self.weights.get(name, 1.0), scale)) for name in fresh)
        return replace(self, fused=(*self.fused, *own), fused_names=(*self.fused_names, *fresh))

    def unfuse(self) -> "Adapters":
        """Take back what was fused."""
        return replace(self, fused=(), fused_names=())

    def _known(self, name: str) -> str:
        if name not in self.files:
            raise UsageError(f"no LoRA is called {name!r}{nearest(name, self.files)}; loaded: {', '.join(self.files)}")
        return name


def _scaled(weight: Weight, scale: float) -> Weight:
    if not isinstance(weight, Mapping):
        return float(weight) * scale
    return {name: [x * scale for x in w] if isinstance(w, list) else _scaled(w, scale) for name, w in weight.items()}


def adapter_file(source: Any, *, weight_name: str | None, subfolder: str | None, names: Sequence[str]) -> Path:
    """Return the file of an adapter: a path, a folder with one, or a name on the Hub.

    Args:
        source: what the caller named.
        weight_name: of the file in it.
        subfolder: in which that is.
        names: what the file is called where nobody says.

    Raises:
        UsageError: it is no path.
        CheckpointError: there is none.

    """
    if not isinstance(source, (str, Path)):
        raise UsageError(f"weights in memory ({type(source).__name__}) cannot be loaded: write them to a file first")
    inside = [part for part in (subfolder, weight_name) if part]
    path = Path(source, *inside)
    if path.is_dir():
        found = [path / name for name in names if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if len(found) != 1 and not (found and found[0].name in names):
            raise UsageError(f"{path} holds {len(found)} files of weights: say which with weight_name")
        return found[0]
    if path.exists() or Path(source).exists():
        if not path.exists():
            raise UsageError(f"there is no {path}")
        return path
    return located("/".join([str(source), *inside, *([] if weight_name else names[:1])]), say=progress).path
