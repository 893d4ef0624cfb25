"""The settings of a request as JSON values, for the record inside an image file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..schedule.choice import described_config
from .request import Request

__all__ = ["settings_of"]


def settings_of(request: Request) -> Mapping[str, Any]:
    """Return the settings that differ from the default and can be written as JSON.

    The prompts, the seed and the size are not among them: the record has them by themselves.
    """
    left_out = ("prompt", "negative_prompt", "seed", "height", "width", "output_type", "callback_on_step_end", "loras")
    defaults = Request()
    settings: dict[str, Any] = {
        name: _written(value)
        for name in request.__dataclass_fields__
        if name not in left_out
        and isinstance(value := getattr(request, name), (*_PLAIN, list, tuple))
        and value != getattr(defaults, name)
    }
    if options := described_config(request.scheduler, request.scheduler_config):
        settings["scheduler_config"] = options
    return settings


_PLAIN = (str, int, float, bool)


def _written(value: Any) -> Any:
    """Return a value as JSON: a path as text, and an object in a list, such as an image, as the name of its class."""
    if isinstance(value, (list, tuple)):
        return [_written(item) for item in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    return str(value) if isinstance(value, Path) else f"<{type(value).__name__}>"
