"""What ``from_pretrained`` and ``from_pipe`` are given -> a checkpoint and how it is to be run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from .attributes import OPENING_NOTED, OPENING_REFUSED
from .calls import PRIOR
from .composed import saved_part
from .locate import located
from .opening import PARTS, Opening, Options
from .parts import Part, PartOf, unwrapped
from .say import note, progress
from .torch_values import precision_of

__all__ = ["LEFT_OUT", "LOCATING", "OPENING_OBEYED", "belongs", "check_options", "opening_for", "with_parts"]

_FLAGS = ("force_zeros_for_empty_prompt", "requires_aesthetics_score")
_OWN = ("engine", "sizes", "batch", "prior", "decoder")

LOCATING = ("revision", "token", "local_files_only", "variant")
"""Options that say where a checkpoint is."""

LEFT_OUT = ("image_encoder",)
"""Parts of checkpoints that are not exported."""

OPENING_OBEYED = (*LOCATING, *_OWN, *_FLAGS, "torch_dtype", "dtype", "controlnet", "scheduler", "add_watermarker")
"""Options of ``from_pretrained`` that are obeyed, beside parts that take the place of the checkpoint's own."""


def belongs(part: Any, opening: Opening) -> bool:
    """Whether a part is one of this checkpoint's own, or none."""
    return part is None or (isinstance(part, PartOf) and part.opening is opening)


def check_options(options: Mapping[str, Any]) -> None:
    """Say which options have no effect.

    Raises:
        UsageError: one is unknown, or cannot be had.

    """
    for name, value in options.items():
        if value is None:
            continue
        if name in OPENING_REFUSED:
            raise UsageError(f"{name}: {OPENING_REFUSED[name]}")
        if name not in OPENING_NOTED:
            known = (*PARTS, *OPENING_OBEYED, *OPENING_NOTED)
            raise UsageError(f"from_pretrained has no option {name!r}{nearest(name, known)}")
        if name not in ("use_safetensors", "low_cpu_mem_usage", "requires_safety_checker"):
            note(f"{name} has no effect: {OPENING_NOTED[name]}")


def opening_for(source: str | Path, options: Mapping[str, Any]) -> tuple[Opening, Any, bool | None]:
    """Return what is opened, the scheduler that was given, and whether there is to be a watermark."""
    rest = dict(options)
    locating = {name: rest.pop(name, None) for name in LOCATING}
    dtype = rest.pop("torch_dtype", None)
    dtype = rest.pop("dtype", dtype)
    own = {name: rest.pop(name) for name in _OWN if rest.get(name) is not None}
    scheduler, watermark = rest.pop("scheduler", None), rest.pop("add_watermarker", None)
    if rest.get("safety_checker", ...) is None:
        own["safety_checker"] = False
    parts = {name: rest.pop(name) for name in (*PARTS, "controlnet", *_FLAGS) if name in rest}
    check_options(rest)
    location = located(source, safety_checker=own.get("safety_checker", True), say=progress, **locating)
    decoder = own.pop("decoder", None)
    is_prior = location.path.is_dir() and not location.is_bundle and location.index().get("_class_name") == PRIOR
    if is_prior:
        own["prior"] = location.path
        reached = {name: locating[name] for name in ("token", "local_files_only", "variant")}
        location = located(_decoder_beside(source) if decoder is None else decoder, say=progress, **reached)
    elif decoder is not None and not location.is_bundle:
        raise UsageError(f"decoder goes with a prior of Kandinsky 2.2; {source} is none")
    bundle = location.is_bundle
    precision = (None if bundle else "fp32") if dtype is None else precision_of(dtype)
    opening = Opening(
        source=location,
        variant=locating["variant"],
        options=Options(device=None if bundle else "cpu", precision=precision, **own),
        pipeline_class=PRIOR if is_prior else None,
    )
    return with_parts(opening, parts), scheduler, watermark


def _decoder_beside(prior: str | Path) -> str:
    """Return the decoder whose name differs from its prior's as on the Hub, kandinsky-2-2-prior and -decoder.

    Raises:
        UsageError: there is none.

    """
    head, slash, name = str(prior).rstrip("/").rpartition("/")
    beside = f"{head}{slash}{name.replace('prior', 'decoder')}"
    if "prior" not in name or (Path(prior).exists() and not Path(beside).is_dir()):
        raise UsageError(f"{prior} is a prior, which is exported together with a decoder: name one with decoder=...")
    return beside


def with_parts(opening: Opening, parts: Mapping[str, Any]) -> Opening:
    """Return the same checkpoint with other parts; itself, if there are none."""
    rest = {name: unwrapped(part) for name, part in parts.items() if not (part is None and name in LEFT_OUT)}
    flags = {name: rest.pop(name) for name in _FLAGS if name in rest}
    nets = rest.pop("controlnet", ...)
    changed = {name: rest.pop(name) for name in PARTS if rest.get(name) is not None}
    rest = {name: part for name, part in rest.items() if part is not None}
    check_options(rest)
    same = all(belongs(part, opening) for part in changed.values()) and (nets is ... or belongs(nets, opening))
    if same and not flags and not (nets is None and opening.controlnets):
        return opening
    folders = {name: _folder(name, part) for name, part in changed.items() if not belongs(part, opening)}
    if nets is ... or (nets is not None and belongs(nets, opening)):
        controlnets = opening.controlnets
    else:
        listed: Sequence[Any] = nets if isinstance(nets, (list, tuple)) else [nets]
        controlnets = tuple(p for net in listed if net is not None for p in _net_folders(net))
    return Opening(
        source=opening.source,
        variant=opening.variant,
        parts={**opening.parts, **folders},
        flags={**opening.flags, **flags},
        controlnets=controlnets,
        options=opening.options,
    )


def _net_folders(net: Any) -> list[Path]:
    if isinstance(net, PartOf):
        return list(net.opening.controlnets)
    several = getattr(net, "nets", None)  # diffusers' MultiControlNetModel
    if several is not None and not isinstance(net, Part):
        return [saved_part("controlnet", one) for one in several]
    return [_folder("controlnet", net)]


def _folder(name: str, part: Any) -> Path:
    return part.folder() if isinstance(part, Part) else saved_part(name, part)
