"""A call as diffusers' class takes it -> what the pipeline is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...engines.errors import UsageError, nearest
from ..request.request import Request
from .calls import CALLS, PRIOR, Call
from .output import known_output_type
from .schedulers import Scheduler
from .torch_values import tensor_of, torch_here

__all__ = [
    "OLD_CALLBACK",
    "OURS",
    "TRANSLATED",
    "Asked",
    "asked",
    "check_prior_tensors",
    "named_arguments",
    "prior_callback",
]

OURS = ("height", "width", "seed", "rng", "scheduler", "scheduler_config", "weighting", "long_prompt", "watermark")
"""Arguments that every class takes, though diffusers' may not."""

OLD_CALLBACK = ("callback", "callback_steps")
"""What diffusers' classes still take as further keywords, in place of ``callback_on_step_end``."""

TRANSLATED = ("return_dict", "prior_callback_on_step_end_tensor_inputs")
"""Arguments that are obeyed here, and that requests do not have."""


class Asked:
    """A call, translated.

    Attributes:
        settings: what :class:`~sdengine.runtime.request.Request` takes.
        output_type: as diffusers has it.
        return_dict: whether an output is returned, or a tuple.

    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.output_type = "pil"
        self.return_dict = True


def asked(call: Call, arguments: Sequence[Any], named: Mapping[str, Any], pipeline: Any) -> Asked:
    """Translate a call.

    Args:
        call: of the class that was called.
        arguments: positional ones.
        named: the others.
        pipeline: what a callback is given.

    Raises:
        UsageError: an argument is unknown to the class, given twice, missing, or cannot be obeyed.

    """
    found, given = Asked(), named_arguments(call, arguments, named)
    for name in call.needs:
        if given.get(name) is None:
            others = [other.name for other in CALLS.values() if _alike(other, call) and name not in other.needs]
            raise UsageError(f"{call.name} needs {name}; {', '.join(others[:3])} do without")
    given = {name: value for name, value in given.items() if value is not None}
    found.output_type = given.pop("output_type", "pil")
    found.return_dict = bool(given.pop("return_dict", True))
    if "callback" in given:
        given["callback_on_step_end"] = _old_callback(given.pop("callback"), int(given.pop("callback_steps", 1)))
    given.pop("callback_steps", None)
    if "callback_on_step_end" in given:
        own = getattr(given["callback_on_step_end"], "tensor_inputs", None)  # of diffusers' callback classes
        if own is not None:
            given["callback_on_step_end_tensor_inputs"] = own
        given["callback_on_step_end"] = _callback(given["callback_on_step_end"], pipeline)
    if "prior_callback_on_step_end" in given:
        given["prior_callback_on_step_end"] = prior_callback(given["prior_callback_on_step_end"], pipeline)
    check_prior_tensors(given, "prior_callback_on_step_end_tensor_inputs")
    if isinstance(given.get("scheduler"), Scheduler):
        given["scheduler"] = given["scheduler"].own_config
    settings = {call.renamed.get(name, name): value for name, value in given.items()}
    # diffusers reads prompts as they stand.
    found.settings = {"weighting": False, **settings, "output_type": known_output_type(found.output_type)}
    return found


def _alike(other: Call, call: Call) -> bool:
    """Whether both are for the same checkpoints, and make images of the same: texts, or embeddings."""
    return (other.label, other.embedded) == (call.label, call.embedded) and PRIOR not in (other.name, call.name)


def named_arguments(call: Call, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments by name.

    Raises:
        UsageError: an argument is unknown to the class, or given twice.

    """
    known = (*call.arguments, *OURS, *OLD_CALLBACK)
    return by_name(call.name, call.arguments, arguments, named, known, lambda name: _instead(call, name, known))


def by_name(
    function: str,
    order: Sequence[str],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    known: Sequence[str],
    instead: Callable[[str], str],
) -> dict[str, Any]:
    """Return all arguments of a function by name.

    Args:
        function: its name, for messages.
        order: names of the arguments that may be positional.
        arguments: positional ones.
        named: the others.
        known: names of all arguments.
        instead: what a message says of an unknown name.

    Raises:
        UsageError: an argument is unknown, or given twice.

    """
    if len(arguments) > len(order):
        raise UsageError(f"{function} takes {len(order)} arguments, not {len(arguments)}")
    values = dict(zip(order, arguments, strict=False))
    for name, value in named.items():
        if name in values:
            raise UsageError(f"{function}: {name} was given twice, by its place and by its name")
        if name not in known:
            raise UsageError(f"{function} has no argument {name!r}{instead(name)}")
        values[name] = value
    return values


def _instead(call: Call, name: str, known: Sequence[str]) -> str:
    """Return which class takes an argument that this one does not."""
    others = [other.name for other in CALLS.values() if other.label == call.label and name in other.arguments]
    if others:
        return f"; {', '.join(others[:3])} {'have' if len(others) > 1 else 'has'}"
    extras = [field.name for field in fields(Request) if field.name == name]
    return f"; sdengine.runtime.Pipeline has {name}" if extras else nearest(name, known)


def _callback(function: Callable[..., Any], pipeline: Any) -> Callable[..., Any]:
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
    inner = _callback(function, pipeline)

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


def _old_callback(function: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """Return a callback of today that calls one of old, ``callback(step, timestep, latents)``."""
    if not callable(function) or steps < 1:
        raise UsageError("callback is a function, and callback_steps a whole number from 1 on")

    def called(_: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> None:
        if step % steps == 0:
            function(step, timestep, tensors["latents"])

    return called
