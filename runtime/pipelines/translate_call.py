"""A call as diffusers' class takes it -> the settings of a request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...engines.errors import UsageError, nearest
from ..request.request import Request
from .callbacks import callback_for, check_prior_tensors, old_callback, prior_callback
from .calls import CALLS, PRIOR, Call
from .output import known_output_type
from .schedulers import Scheduler

__all__ = [
    "OLD_CALLBACK",
    "OURS",
    "TRANSLATED",
    "TranslatedCall",
    "named_arguments",
    "translate_call",
]

OURS = ("height", "width", "seed", "rng", "scheduler", "scheduler_config", "weighting", "long_prompt", "watermark")
"""Arguments that every class takes, though diffusers' may not."""

OLD_CALLBACK = ("callback", "callback_steps")
"""What diffusers' classes still take as further keywords, in place of ``callback_on_step_end``."""

TRANSLATED = ("return_dict", "prior_callback_on_step_end_tensor_inputs")
"""Arguments that are obeyed here, and that requests do not have."""


class TranslatedCall:
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


def translate_call(call: Call, arguments: Sequence[Any], named: Mapping[str, Any], pipeline: Any) -> TranslatedCall:
    """Translate a call.

    Args:
        call: of the class that was called.
        arguments: positional ones.
        named: the others.
        pipeline: what a callback is given.

    Raises:
        UsageError: an argument is unknown to the class, given twice, missing, or cannot be obeyed.

    """
    translated, values = TranslatedCall(), named_arguments(call, arguments, named)
    for name in call.needs:
        if values.get(name) is None:
            others = [other.name for other in CALLS.values() if _alike(other, call) and name not in other.needs]
            raise UsageError(f"{call.name} needs {name}; {', '.join(others[:3])} do without")
    values = {name: value for name, value in values.items() if value is not None}
    translated.output_type = values.pop("output_type", "pil")
    translated.return_dict = bool(values.pop("return_dict", True))
    if "callback" in values:
        values["callback_on_step_end"] = old_callback(values.pop("callback"), int(values.pop("callback_steps", 1)))
    values.pop("callback_steps", None)
    if "callback_on_step_end" in values:
        own = getattr(values["callback_on_step_end"], "tensor_inputs", None)  # of diffusers' callback classes
        if own is not None:
            values["callback_on_step_end_tensor_inputs"] = own
        values["callback_on_step_end"] = callback_for(values["callback_on_step_end"], pipeline)
    if "prior_callback_on_step_end" in values:
        values["prior_callback_on_step_end"] = prior_callback(values["prior_callback_on_step_end"], pipeline)
    check_prior_tensors(values, "prior_callback_on_step_end_tensor_inputs")
    if isinstance(values.get("scheduler"), Scheduler):
        values["scheduler"] = values["scheduler"].own_config
    settings = {call.renamed.get(name, name): value for name, value in values.items()}
    # diffusers reads prompts as they stand.
    translated.settings = {"weighting": False, **settings, "output_type": known_output_type(translated.output_type)}
    return translated


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
