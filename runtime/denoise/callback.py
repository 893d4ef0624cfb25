"""Callbacks at the end of a step, with a check of what they return."""

from collections.abc import Callable, Mapping
from typing import Any

from ...engines.errors import UsageError
from ...engines.scalars import shortened
from ..request.arrays import finite_array

__all__ = ["CheckedCallback", "checked_callback"]


class CheckedCallback:
    """A callback whose result is checked: None, or a dict of tensors by name.

    Args:
        function: the caller's, called as (pipeline, step, timestep, tensors).

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Call the function.

        Raises:
            UsageError: it returned something else, or tensors that are not finite numbers.

        """
        returned = self.function(pipeline, step, timestep, tensors)
        if returned is None:
            return None
        if not isinstance(returned, Mapping):
            raise UsageError(
                f"callback_on_step_end returned {type(returned).__name__}: return None, or a dict with latents"
            )
        return {
            name: None if value is None else finite_array(f"the {name} that callback_on_step_end returned", value)
            for name, value in returned.items()
        }


def checked_callback(function: object) -> CheckedCallback:
    """Return a callback that checks what it returns.

    Raises:
        UsageError: it cannot be called.

    """
    if isinstance(function, CheckedCallback):
        return function
    if not callable(function):
        raise UsageError(f"callback_on_step_end={shortened(function)} is no function")
    return CheckedCallback(function)
