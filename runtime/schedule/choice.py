"""Reads a request's ``scheduler`` and ``scheduler_config``: which solver, with which config.

diffusers' own objects and classes are read by their attributes (``config``, ``__name__``): neither diffusers nor torch
is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from ...engines.files.json_data import json_data
from ...engines.files.regular_file import open_regular
from ...engines.scalars import plain_numbers, shortened
from .solver_registry import SOLVERS, find_solver

__all__ = ["SchedulerChoice", "choose_scheduler", "described_config", "read_scheduler_config"]

_CLASS = "_class_name"
_LARGEST = 2**24  # bytes that are read of a config; a longer file is cut off there, and is then no JSON


@dataclass(frozen=True, kw_only=True)
class SchedulerChoice:
    """A solver and its options, as :func:`~.make.make_schedule` takes them.

    Attributes:
        solver: its name.
        config: a complete config: the checkpoint's, or one that replaces it.
        overrides: options that replace the config's.
        warnings: options of the config that have no effect, or may be a mistake.

    """

    solver: str
    config: Mapping[str, object]
    overrides: Mapping[str, object]
    warnings: tuple[str, ...] = ()


def choose_scheduler(scheduler: Any, scheduler_config: Any, checkpoint: Mapping[str, object]) -> SchedulerChoice:
    """Read a request's ``scheduler`` and ``scheduler_config``.

    Args:
        scheduler: a name; or a scheduler class of diffusers, with the config as in ``from_config``; or a scheduler
            object of diffusers, or its config, which replaces the checkpoint's; or None.
        scheduler_config: options that replace the config's; or a complete config of diffusers, which has private keys
            such as ``_class_name``, or the path of its file, which replaces the checkpoint's; or None. If neither
            argument names a solver, it is the checkpoint's.
        checkpoint: the checkpoint's config.

    Raises:
        UsageError: an argument is none of these, no solver is named, or a file cannot be read.

    """
    config, overrides = checkpoint, _config_of(scheduler_config)
    name = _name_of(scheduler)
    if isinstance(scheduler, Mapping):
        config = _config_of(scheduler)
    elif scheduler is not None and not isinstance(scheduler, (str, type)):
        config = _config_of(scheduler.config)
    if any(key.startswith("_") for key in overrides):
        config, overrides = overrides, {}
    solver = name or config.get(_CLASS) or checkpoint.get(_CLASS)
    if not isinstance(solver, str):
        raise UsageError("the scheduler config has no _class_name: name a solver")
    warnings = () if config is checkpoint else _warnings(solver, config, checkpoint)
    return SchedulerChoice(solver=solver, config=config, overrides=overrides, warnings=warnings)


def described_config(scheduler: Any, scheduler_config: Any) -> dict[str, object]:
    """Return the options that a caller set, without private keys, as values that can be written as JSON."""
    config = _config_of(scheduler_config)
    if not any(key.startswith("_") for key in config) and not (scheduler is None or isinstance(scheduler, (str, type))):
        config = _config_of(scheduler if isinstance(scheduler, Mapping) else scheduler.config) | config
    plain = {key: value for key, value in config.items() if not key.startswith("_") and value is not None}
    return {
        key: str(value) if isinstance(value, float) and not isfinite(value) else value for key, value in plain.items()
    }


def read_scheduler_config(path: Path) -> dict[str, object]:
    """Read a ``scheduler_config.json``, or the one in a folder.

    Raises:
        UsageError: there is none, or it holds something else.

    """
    file = path / "scheduler_config.json" if path.is_dir() else path
    try:
        with open_regular(file) as stream:
            config = json_data(stream.read(_LARGEST + 1))
    except FileNotFoundError as error:
        raise UsageError(f"scheduler_config: there is no file {file}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"scheduler_config: {file} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"scheduler_config: {file} holds no object of options")
    return config


def _name_of(scheduler: Any) -> str | None:
    if scheduler is None or isinstance(scheduler, str):
        return scheduler
    if isinstance(scheduler, Mapping):
        return None
    if isinstance(scheduler, type):
        return scheduler.__name__
    if hasattr(scheduler, "config"):
        return type(scheduler).__name__
    raise UsageError(
        f"scheduler is a name, a config, or a scheduler class or object of diffusers, not {type(scheduler).__name__}"
    )


def _config_of(config: Any) -> dict[str, object]:
    if isinstance(config, (str, Path)):
        config = read_scheduler_config(Path(config))
    if config is None:
        return {}
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise UsageError(
            f"scheduler_config is a mapping of options or the path of a scheduler_config.json, not {shortened(config)}"
        )
    return {key: plain_numbers(value) for key, value in config.items()}


def _defaulted(config: Mapping[str, object]) -> list[str]:
    names = config.get("_use_default_values")
    return list(names) if isinstance(names, (list, tuple, set)) else []


def _warnings(name: str, config: Mapping[str, object], checkpoint: Mapping[str, object]) -> tuple[str, ...]:
    """Warn of options without effect in a config that replaces the checkpoint's, and of another prediction type."""
    solver, _ = find_solver(name)
    defaults = solver.options.defaults
    of_any_solver = {option for other in SOLVERS.values() for option in other.options.defaults}
    foreign = [key for key in config if not key.startswith("_") and key not in defaults]
    warnings = []
    if foreign:
        listed = ", ".join(key if key in of_any_solver else f"{key}{nearest(key, defaults)}" for key in foreign)
        warnings.append(f"scheduler_config: {solver.name} has no {listed}: no effect, as in diffusers")
    warnings += [
        f"scheduler_config: {key}={config[key]!r} has no effect, as in diffusers: _use_default_values names it"
        for key in _defaulted(config)
        if config.get(_CLASS) == solver.name and key in defaults and config.get(key, defaults[key]) != defaults[key]
    ]
    trained, requested = (str(part.get("prediction_type") or "epsilon") for part in (checkpoint, config))
    if "prediction_type" in defaults and trained != requested:
        warnings.append(
            f"scheduler_config: prediction_type is {requested}, the checkpoint's is {trained}; images are noise if "
            "that is not meant"
        )
    return tuple(warnings)
