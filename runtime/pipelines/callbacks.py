"""Callbacks as diffusers' classes take them -> those of a request."""

from collections.abc import Callable, Mapping
from typing import Any

from ...engines.errors import UsageError
from .torch_values import tensor_of, torch_here

__all__ = ["callback_for", "check_prior_tensors", "old_callback", "prior_callback"]


def callback_for(function: Callable[..., Any], pipeline: Any) -> Callable[..., Any]:
    """Give a callback what diffusers' would get: the front door's pipeline, and tensors where torch is here."""
    if not callable(function):
        raise UsageError(f"callback_on_step_end={function!r} is no function")

    def called(_: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> Any:
        torch = torch_here()
        shown = {name: None if array is None else tensor_of(array) for name, array in tensors.items()}
        return function(pipeline, step, timestep if torch is None else torch.tensor(timestep), shown)

    return called


def prior_callback(function: Callable[..., Any], pipeline: Any) -> Callable[..., Any]:
    """Give a prior's callback latents as diffusers has them, [S, D], and take such back."""
    inner = callback_for(function, pipeline)

    def called(_: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> Any:
        returned = inner(_, step, timestep, {"latents": tensors["latents"][:, :, 0, 0]})
        changed = dict(returned or {})
        if getattr(changed.get("latents"), "ndim", 0) == 2:
            changed["latents"] = changed["latents"][:, :, None, None]
        return changed

    return called


def check_prior_tensors(arguments: dict[str, Any], name: str) -> None:
    """Remove an argument, the names of what a prior's callback gets.

    Args:
        arguments: all, by name.
        name: the argument's.

    Raises:
        UsageError: it names anything but ``latents``.

    """
    tensors = arguments.pop(name, ("latents",))
    if any(tensor != "latents" for tensor in tensors):
        raise UsageError(f"{name}={tensors!r}: there is latents")


def old_callback(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Return a callback of today that calls one of old, ``callback(step, timestep, latents)``."""
    if not callable(function) or steps < 1:
        raise UsageError("callback is a function, and callback_steps a whole number from 1 on")

    def called(_: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> None:
        if step % steps == 0:
            function(step, timestep, tensors["latents"])

    return called
