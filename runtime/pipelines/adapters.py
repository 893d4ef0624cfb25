"""The LoRAs of a pipeline, by the names that diffusers' methods give them: which are loaded, active and fused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from ...engines.lora import COMPONENTS, components_of
from .locate import located
from .say import progress

__all__ = ["Adapters", "adapter_file"]

Weight = float | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A LoRA that was fused.

    Attributes:
        name: what it was called.
        file: its file.
        weights: by component into which it was fused.
        scale: factor of all weights.
        loaded: whether it is among the loaded ones still; otherwise it stays whatever becomes of them.

    """

    name: str
    file: Path
    weights: Mapping[str, Weight]
    scale: float
    loaded: bool = True


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """LoRAs as diffusers has them: each component has active ones of its own. Every change makes another object.

    Attributes:
        files: of those that are loaded, by name.
        components: those that each changes, by name.
        weights: that were set, by name.
        active: names of those that are active, by component.
        enabled: whether those that are loaded are used.
        fused: those that were fused.

    """

    files: Mapping[str, Path] = field(default_factory=dict)
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weights: Mapping[str, Weight] = field(default_factory=dict)
    active: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    enabled: bool = True
    fused: tuple[Fused, ...] = ()

    @property
    def sources(self) -> list[tuple[Path, Weight]]:
        """What :meth:`~sdengine.runtime.pipeline.Pipeline.set_loras` takes."""
        return self.scaled(1.0)

    def scaled(self, scale: float) -> list[tuple[Path, Weight]]:
        """Return the same with the weights of what is not fused multiplied, as a call's ``scale`` does in diffusers."""
        sources: list[tuple[Path, Weight]] = [
            (one.file, {**_everywhere(one.weights), "scale": one.scale})
            for one in self.fused
            if self.enabled or not one.loaded
        ]
        for name, file in self.files.items() if self.enabled else ():
            into = [component for component in self._in(name) if component not in self._fused_into(name)]
            if into:
                whole = len(into) == len(self.components[name])
                of_each = _everywhere({component: _of(self.weights[name], component) for component in into})
                weight = self.weights[name] if whole else of_each
                sources.append((file, weight if scale == 1.0 else _times(weight, scale)))
        return sources

    def of_call(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's settings so that its ``scale`` does not reach what is fused."""
        kwargs = settings.get("cross_attention_kwargs")
        scale = kwargs.get("scale") if isinstance(kwargs, Mapping) else None
        if not self.fused or isinstance(scale, bool) or not isinstance(scale, Real):
            return dict(settings)
        others = {name: value for name, value in kwargs.items() if name != "scale"}  # type: ignore[union-attr]
        return {**settings, "cross_attention_kwargs": others or None, "loras": self.scaled(float(scale))}

    def _in(self, name: str) -> list[str]:
        """Return the components in which one is active."""
        return [component for component in COMPONENTS if name in self.active.get(component, ())]

    def _fused_into(self, name: str) -> set[str]:
        return {component for one in self.fused if one.loaded and one.name == name for component in one.weights}

    @property
    def active_names(self) -> list[str]:
        """Names of those that are active in any component."""
        return list(dict.fromkeys(name for component in COMPONENTS for name in self.active.get(component, ())))

    @property
    def by_component(self) -> dict[str, list[str]]:
        """Names of those that are loaded, by component."""
        names = {c: [name for name in self.files if c in self.components[name]] for c in COMPONENTS}
        return {component: own for component, own in names.items() if own}

    def load(self, file: Path, name: str | None, *, hotswap: bool = False) -> "Adapters":
        """Add a LoRA; in the components that it changes it alone is active then. Or put it in another's place."""
        components = components_of(file)
        if hotswap:
            taken = self._known(name or "")
            if any(component != "unet" for component in (*components, *self.components[taken])):
                raise UsageError(
                    "hotswap: only LoRAs of the UNet alone take each other's places; set_adapters changes any"
                )
            return replace(self, files={**self.files, taken: file}, weights={**self.weights, taken: 1.0})
        taken = name or next(f"default_{i}" for i in range(len(self.files) + 1) if f"default_{i}" not in self.files)
        if taken in self.files:
            raise UsageError(f"adapter_name={taken!r} is loaded already: choose another name, or delete_adapters first")
        return replace(
            self,
            files={**self.files, taken: file},
            components={**self.components, taken: components},
            weights={**self.weights, taken: 1.0},
            active={**self.active, **dict.fromkeys(components, (taken,))},
        )

    def set(self, names: Any, weights: Any) -> "Adapters":
        """Say which are active, and how strong."""
        listed = [names] if isinstance(names, str) else list(names)
        each = list(weights) if isinstance(weights, (list, tuple)) else [weights] * len(listed)
        if len(each) != len(listed):
            raise UsageError(f"adapter_weights: {len(each)} for {len(listed)} adapters")
        chosen = {self._known(n): _checked(1.0 if w is None else w) for n, w in zip(listed, each, strict=True)}
        active = {c: tuple(name for name in chosen if c in self.components[name]) for c in COMPONENTS}
        return replace(self, weights={**self.weights, **chosen}, active=active)

    def delete(self, names: Any) -> "Adapters":
        """Take some away; where none is active then, the first of the others is."""
        gone = [self._known(name) for name in ([names] if isinstance(names, str) else names)]
        files = {name: file for name, file in self.files.items() if name not in gone}
        active = {}
        for component, before in self.active.items():
            left = tuple(name for name in before if name in files)
            others = sorted(name for name in files if component in self.components[name])
            active[component] = left or (tuple(others[:1]) if before else ())
        fused = tuple(replace(one, loaded=False) if one.name in gone else one for one in self.fused)
        return replace(self, files=files, active=active, fused=fused)

    def unload(self) -> "Adapters":
        """Take all away but what is fused."""
        return Adapters(fused=tuple(replace(one, loaded=False) for one in self.fused))

    def fuse(self, scale: float, names: Sequence[str] | None, components: Any) -> "Adapters":
        """Let those that are active, or named, stay in some components when the others go."""
        into = _components(components)
        fused = list(self.fused)
        for name in [self._known(name) for name in (self.files if names is None else names)]:
            own = self._in(name) if names is None else self.components[name]
            fresh = [component for component in own if component in into and component not in self._fused_into(name)]
            if fresh:
                weights = {component: _of(self.weights[name], component) for component in fresh}
                fused.append(Fused(name=name, file=self.files[name], weights=weights, scale=scale))
        return replace(self, fused=tuple(fused))

    def unfuse(self, components: Any) -> "Adapters":
        """Take back what was fused into some components."""
        into = _components(components)
        left = [
            replace(one, weights={component: w for component, w in one.weights.items() if component not in into})
            for one in self.fused
        ]
        return replace(self, fused=tuple(one for one in left if one.weights))

    def _known(self, name: str) -> str:
        if name not in self.files:
            loaded = ", ".join(self.files) or "none"
            raise UsageError(f"no LoRA is called {name!r}{nearest(name, self.files)}; loaded: {loaded}")
        return name


def _components(names: Any) -> Sequence[str]:
    if names is None:
        return COMPONENTS
    listed = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in listed if name not in COMPONENTS]
    if unknown or not listed:
        what = f"{unknown[0]!r} has no LoRAs" if unknown else "none is named"
        raise UsageError(f"components: {what}; there are {', '.join(COMPONENTS)}")
    return listed


def _checked(weight: Any) -> Any:
    """Refuse components that there are not; what else a weight may be is known when the checkpoint is."""
    for name in weight if isinstance(weight, Mapping) else ():
        if name not in COMPONENTS:
            raise UsageError(f"adapter_weights names {name!r}: it can name {', '.join(COMPONENTS)}")
    return weight


def _of(weight: Weight, component: str) -> Weight:
    """Return the weight for one component."""
    return weight.get(component, 1.0) if isinstance(weight, Mapping) else weight


def _times(weight: Weight, factor: float) -> Weight:
    return {**weight, "scale": factor} if isinstance(weight, Mapping) else factor * weight


def _everywhere(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return weights of some components as those of all: 0 for the others."""
    return {component: weights.get(component, 0.0) for component in COMPONENTS}


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
        files = [path / name for name in names if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if len(files) != 1 and not (files and files[0].name in names):
            raise UsageError(f"{path} holds {len(files)} files of weights: say which with weight_name")
        return files[0]
    if path.exists() or Path(source).exists():
        if not path.exists():
            raise UsageError(f"there is no {path}")
        return path
    return located("/".join([str(source), *inside, *([] if weight_name else names[:1])]), say=progress).path
