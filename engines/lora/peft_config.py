"""What PEFT writes down about an adapter: ``adapter_config.json``, or diffusers' ``lora_adapter_metadata``."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UsageError
from ..files.json_data import json_data
from ..scalars import shortened
from .change import Scaling

__all__ = ["CONFIG", "config_beside", "configs_in", "scaling_of"]

CONFIG = "adapter_config.json"
_PATTERNS = ("rank_pattern", "alpha_pattern")
_FIELDS = ("r", "lora_alpha", "alpha", *_PATTERNS, "use_rslora")
_HEADER = "lora_adapter_metadata"
_KINDS = ("LORA", "LOHA", "LOKR", "IA3")
_OTHER_WEIGHTS = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Beginnings of ``init_lora_weights`` with which PEFT changes the checkpoint's own weights before it trains."""
_OTHER_FORMULAS = (
    "use_qalora",
    "alora_invocation_tokens",
    "monteclora_config",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "layer_replication",
)
"""Fields with which the same names of tensors mean something else."""

Config = Mapping[str, Any]


def config_beside(file: Path) -> Config | None:
    """Return the configuration in a folder of PEFT, or None.

    Raises:
        UsageError: it is of a kind that cannot be applied.
        CheckpointError: it cannot be read.

    """
    config = file.parent / CONFIG
    return _checked(config, _parsed(config, config.read_bytes())) if config.is_file() else None


def configs_in(file: Path, metadata: Mapping[str, str]) -> dict[str, Config]:
    """Return the configurations in a header, by network; under "" where it names none.

    Raises:
        UsageError: one is of a kind that cannot be applied.
        CheckpointError: they cannot be read.

    """
    text = metadata.get(_HEADER)
    configs: dict[str, dict[str, Any]] = {}
    for name, value in (_parsed(file, text) if text else {}).items():
        network, _, field = name.rpartition(".")
        configs.setdefault(network, {})[field] = value
    return {network: _checked(file, config) for network, config in configs.items() if set(config) & set(_FIELDS)}


def scaling_of(config: Config, module: str) -> Scaling:
    """Return how a configuration scales a module: alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA."""

    def pattern(field: str, default: Any) -> Any:
        patterns: Mapping[str, Any] = config.get(field) or {}
        names = (module, module.removeprefix("text_model."))
        return next(
            (v for key, v in patterns.items() if any(re.fullmatch(rf"(.*\.)?({key})", n) for n in names)), default
        )

    def scaling(rank: int) -> float:
        rank = rank or int(pattern("rank_pattern", config.get("r", 8)))
        alpha = pattern("alpha_pattern", config.get("lora_alpha", config.get("alpha", rank)))
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    return scaling


def _checked(file: Path, config: dict[str, Any]) -> Config:
    """Return what scaling needs of a configuration, without entries that are null."""
    _refuse(file, config)
    known = {name: config[name] for name in _FIELDS if config.get(name) is not None}
    for name, value in known.items():
        numbers = value.values() if name in _PATTERNS and isinstance(value, dict) else [value]
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            what = "numbers by names of modules" if name in _PATTERNS else "a number"
            raise CheckpointError(f"{file}: {name} of its adapter should be {what}, not {value!r}")
    for name in _PATTERNS:
        for pattern in known.get(name, {}):
            try:
                re.compile(pattern)
            except re.error as error:
                raise CheckpointError(f"{file}: {name} of its adapter: {pattern!r} is no pattern: {error}") from error
    return known


def _refuse(file: Path, config: Config) -> None:
    """Refuse what a file's tensors alone would not show: that they mean something else, or are not all."""
    kind = str(config.get("peft_type") or _KINDS[0]).rpartition(".")[2].upper()
    if kind not in _KINDS:
        raise UsageError(f"{file}: it is of PEFT's kind {kind}, which cannot be applied; {', '.join(_KINDS)} can")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_WEIGHTS):
        raise UsageError(
            f"{file}: it was trained over weights that are not the checkpoint's (init_lora_weights: {start}) and "
            "cannot be applied to those; PEFT converts it: save_pretrained(path_initial_model_for_weight_conversion=)"
        )
    for field in _OTHER_FORMULAS:
        if config.get(field):
            raise UsageError(f"{file}: it was trained with PEFT's {field}, which cannot be applied")
    for field, none in (("modules_to_save", None), ("bias", "none")):
        if config.get(field) and config[field] != none:
            what = f"{field}: {shortened(config[field])}"
            raise UsageError(f"{file}: parts of the networks were trained beside it ({what}), which cannot be applied")


def _parsed(file: Path, text: str | bytes) -> dict[str, Any]:
    try:
        content = json_data(text)
    except ValueError as error:
        raise CheckpointError(f"{file}: the configuration of its adapter is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: the configuration of its adapter is no JSON object")
    return content
