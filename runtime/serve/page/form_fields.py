"""What a form for a bundle asks: the fields of a request that the bundle has a use for, made of their declarations."""

from typing import Any

from ....engines.bundle.pixel_sizes import pixel_range
from ...request.argument import FLAG, IMAGE, IMAGES, PAIR, SCHEDULER, SERIES, Argument, argument_of
from ...request.request_checks import NEEDS, arguments_of_no_use
from ...schedule import solver_names
from ..body_fields import REQUEST
from ..limits import Limits
from ..model import Model

__all__ = ["fields_for"]

_SENT_AS = {"num_images_per_prompt": "n"}
"""OpenAI's name for a field, where the page takes that."""


def fields_for(model: Model, limits: Limits) -> list[dict[str, Any]]:
    """Return the fields that a form should have, in their order.

    Each has ``name``, ``label``, ``about``, ``group``, ``control`` (``text``, ``integer``, ``number``, ``flag``,
    ``numbers`` (one or several), ``choice``, ``list``, ``pair``, ``picture`` or ``pictures``), ``default`` (what holds
    if it is left out; None where that is said nowhere), ``needs`` (the picture without which it means nothing), and
    where they are known ``minimum``, ``maximum``, ``step`` and ``choices``. Arrays, which nobody types, are left out.
    """
    return [
        _described(name, argument_of(REQUEST[name]), model, limits)
        for name in REQUEST
        if _of_use(name, model) and _can_be_typed(argument_of(REQUEST[name]))
    ]


def _of_use(name: str, model: Model) -> bool:
    bundle = model.pipeline.bundle
    if name in arguments_of_no_use(bundle):
        return False
    return bool(bundle.manifest.controlnets) or "control_image" not in (name, NEEDS.get(name))


def _can_be_typed(argument: Argument) -> bool:
    return argument.kind.written is not None


def _described(name: str, argument: Argument, model: Model, limits: Limits) -> dict[str, Any]:
    kind = argument.kind
    label = (argument.short[0] if argument.short else name).replace("-", " ").replace("_", " ")
    field: dict[str, Any] = {
        "name": _SENT_AS.get(name, name),
        "label": label[0].upper() + label[1:],
        "about": argument.about,
        "group": argument.group,
        "control": _control(argument),
        "default": _default(name, model),
        "needs": NEEDS.get(name),
    }
    bounds = {"minimum": kind.least, "maximum": kind.most, **_bounds(name, model, limits)}
    field |= {key: value for key, value in bounds.items() if value is not None}
    choices = list(solver_names()) if kind is SCHEDULER else list(kind.choices)
    return field | ({"choices": choices} if choices else {})


def _control(argument: Argument) -> str:
    kind = argument.kind
    if kind is IMAGE or kind is IMAGES:
        return "pictures" if kind.many else "picture"
    if kind is SCHEDULER or kind.choices:
        return "choice"
    if kind is FLAG:
        return "flag"
    if kind is PAIR:
        return "pair"
    if kind is SERIES:
        return "list"
    if kind.written is str:
        return "text"
    if kind.many:
        return "numbers"
    return "integer" if kind.written is int else "number"


def _bounds(name: str, model: Model, limits: Limits) -> dict[str, Any]:
    """Return what bundle and server know better than the declaration."""
    if name in ("height", "width"):
        sides = pixel_range(model.pipeline.bundle, name[0])
        return {"minimum": sides.least, "maximum": sides.most, "step": sides.multiple}
    return {"num_images_per_prompt": {"maximum": limits.n}, "num_inference_steps": {"maximum": limits.steps}}.get(
        name, {}
    )


def _default(name: str, model: Model) -> Any:
    bundle = model.pipeline.bundle
    height, width = bundle.manifest.default_size
    pipeline_class = str(bundle.manifest.model_index.get("_class_name", ""))
    task = "image" if name == "strength" else "text"
    family = bundle.family.defaults_for(pipeline_class, task, controlled=NEEDS.get(name) == "control_image")
    values = {"height": height, "width": width, "scheduler": bundle.scheduler().get("_class_name")}
    return values.get(name, getattr(family, name, REQUEST[name].default))
