"""diffusers' schedulers by name: their options, and nothing that computes. Pipelines make their tables of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from ...engines.scheduler_fixes import SCHEDULER_CLASSES

__all__ = ["SCHEDULERS", "Config", "Scheduler"]

_DEFAULTED = "_use_default_values"


class _UnknownAttributeError(UsageError, AttributeError):
    """Something that schedulers of diffusers have, and these do not."""


class Config(dict[str, Any]):
    """A config whose values can be read as attributes, and not be changed; as diffusers' ``FrozenDict``."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the config has no {name!r}{nearest(name, self)}")

    def _refuse(self, *_: object, **__: object) -> None:
        raise UsageError(
            "a config is not changed in place: make another scheduler with from_config(config, NAME=VALUE)"
        )

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = _refuse
    update = pop = setdefault = clear = popitem = _refuse  # type: ignore[assignment]


class Scheduler:
    """A scheduler of diffusers, as its options.

    Args:
        options: of diffusers' class of this name; what is not given has diffusers' default.

    Attributes:
        config: all of them, and those that other classes have left in the config that this was made from.

    Raises:
        UsageError: the class has no such option.

    """

    config: Config

    def __init__(self, **options: Any) -> None:
        defaults = _defaults(type(self).__name__)
        for name in options:
            if name not in defaults:
                raise UsageError(f"{type(self).__name__} has no option {name!r}{nearest(name, defaults)}")
        self._set_config(options, {})

    def _set_config(self, own: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        name = type(self).__name__
        defaults = _defaults(name)
        defaulted = [option for option in defaults if option not in own]
        self.config = Config({**others, **defaults, **own, "_class_name": name, _DEFAULTED: defaulted})

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> "Scheduler":
        """Make one from another scheduler's config: what that sets holds here too, its defaults do not.

        Args:
            config: a mapping, or a scheduler.
            options: on top.

        Raises:
            UsageError: it is no config, or the class has no such option.

        """
        values = getattr(config, "config", config)
        if not isinstance(values, Mapping):
            raise UsageError(f"from_config takes a scheduler's config, not {type(config).__name__}")
        made = cls(**options)
        ignored = {*(values.get(_DEFAULTED) or ())}
        chosen = {name: value for name, value in values.items() if name not in ignored and not name.startswith("_")}
        defaults = _defaults(cls.__name__)
        own = {name: value for name, value in chosen.items() if name in defaults}
        made._set_config({**own, **options}, {n: v for n, v in chosen.items() if n not in defaults})
        return made

    @classmethod
    def from_pretrained(cls, path: str | Path, subfolder: str | None = None, **options: Any) -> "Scheduler":
        """Make one from a checkpoint's folder; ``subfolder`` is ``scheduler`` for a whole checkpoint.

        Raises:
            UsageError: there is no such config, or the class has no such option.

        """
        from ..schedule.choice import read_scheduler_config
        from .locate import located

        opening = {name: options.pop(name) for name in ("revision", "token", "local_files_only") if name in options}
        folder = located(path, **opening).path
        return cls.from_config(read_scheduler_config(folder / subfolder if subfolder else folder), **options)

    @property
    def own_config(self) -> dict[str, Any]:
        """The options of this class alone, as a request takes them."""
        defaults = _defaults(type(self).__name__)
        return {name: value for name, value in self.config.items() if name in defaults or name.startswith("_")}

    def __getattr__(self, name: str) -> Any:
        raise _UnknownAttributeError(
            f"a scheduler has no {name!r} here: it is its config, which pipelines make a table of numbers of"
        )

    def __repr__(self) -> str:
        chosen = {n: v for n, v in self.config.items() if not n.startswith("_") and n not in self.config[_DEFAULTED]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in chosen.items())})"


def _defaults(name: str) -> Mapping[str, Any]:
    from ..schedule.solver_registry import SOLVERS

    return SOLVERS[name].options.defaults


SCHEDULERS: dict[str, type[Scheduler]] = {
    name: type(name, (Scheduler,), {"__doc__": f"diffusers' ``{name}``.", "__module__": __name__})
    for name in SCHEDULER_CLASSES
}
"""By name."""
