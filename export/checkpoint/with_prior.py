"""Reading a checkpoint in two parts: a decoder, and its prior."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError
from ...engines.families import FAMILIES
from .component import Checkpoint
from .folder import is_checkpoint, read_networks
from .image_processor import clip_image_settings
from .json_file import read_json
from .tokenizer_folders import is_tokenizer, pad_token

__all__ = ["IMAGE_PROCESSOR", "is_decoder", "is_prior", "prior_of_card", "read_decoder"]

IMAGE_PROCESSOR = "image_processor.json"
"""In a bundle: how images are prepared for the image encoder."""

_FAMILY = FAMILIES["kandinsky22"]
_DECODER = {"unet": ("UNet2DConditionModel",), "movq": ("VQModel",)}
_PRIOR = {
    "prior": ("PriorTransformer",),
    "text_encoder": ("CLIPTextModelWithProjection",),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}
_BESIDE = ("scheduler", "tokenizer", "image_processor")
_COMBINED = "prior_"
"""What the parts of the prior begin with where one folder holds both."""


def is_decoder(folder: Path) -> bool:
    """Whether the folder is a decoder that needs a prior."""
    return is_checkpoint(folder) and "movq" in read_json(folder / "model_index.json")


def is_prior(folder: Path) -> bool:
    """Whether the folder is a prior, which is of no use alone."""
    return is_checkpoint(folder) and "prior" in read_json(folder / "model_index.json")


def prior_of_card(folder: Path) -> str | None:
    """Return the prior that the decoder's model card names, as diffusers finds it; None where it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    from huggingface_hub import metadata_load

    try:
        named: Any = (metadata_load(card) or {}).get("prior")
    except Exception as error:  # any error of the YAML library
        raise CheckpointError(f"the head of {card} cannot be read: {error}") from error
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) else None


def read_decoder(folder: Path, prior: Callable[[], Path], *, source: str, variant: str | None) -> Checkpoint:
    """Open a decoder and its prior, both in diffusers' layout.

    Args:
        folder: the decoder's, with ``model_index.json``.
        prior: returns the prior's; called where the decoder's folder does not hold it, too.
        source: what the user named.
        variant: see :func:`~.folder.read_folder`.

    Raises:
        CheckpointError: one of them is incomplete, damaged, or of another kind.

    """
    index = read_json(folder / "model_index.json")
    combined = any(name.startswith(_COMBINED) for name in index)
    place, prefix = (folder, _COMBINED) if combined else (prior(), "")
    if not is_checkpoint(place):
        raise CheckpointError(f"{place} is no prior: it has no model_index.json")
    other = read_json(place / "model_index.json")
    _check(folder, index, _DECODER, "decoder", "")
    _check(place, other, _PRIOR, "prior", prefix)
    networks, notes = read_networks(folder, {name: folder / name for name in _DECODER}, _classes(_DECODER), variant)
    others = {name: place / f"{prefix}{name}" for name in _PRIOR}
    more, other_notes = read_networks(place, others, _classes(_PRIOR), variant)
    networks |= more
    tokenizer = place / f"{prefix}tokenizer"
    if not is_tokenizer(tokenizer):
        raise CheckpointError(f"{tokenizer} holds neither tokenizer.json nor vocab.json with merges.txt")
    flags = {name: value for name, value in index.items() if not name.startswith("_") and not isinstance(value, list)}
    [stage] = _FAMILY.stages
    return Checkpoint(
        source=source,
        family=_FAMILY.name,
        components={name: networks[name] for name in _FAMILY.networks},
        tokenizers={"tokenizer": tokenizer},
        pad_tokens={"tokenizer": pad_token(tokenizer)},
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        model_index={"_class_name": index.get("_class_name"), **flags},
        settings={
            stage.scheduler: read_json(place / f"{prefix}scheduler" / "scheduler_config.json"),
            IMAGE_PROCESSOR: clip_image_settings(
                place / f"{prefix}image_processor",
                networks["image_encoder"].config.get("image_size", 224),
                "image encoder",
            ),
        },
        notes=(*notes, *other_notes),
    )


def _classes(parts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: classes[0] for name, classes in parts.items()}


def _check(
    folder: Path, index: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]], what: str, prefix: str
) -> None:
    """Check that a pipeline has the parts that are compiled, of the right classes."""
    pipeline = index.get("_class_name")
    for name, classes in parts.items():
        entry = index.get(prefix + name)
        class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if class_name not in classes:
            has = "no" if class_name is None else f"a {class_name} as"
            raise CheckpointError(f"{folder} is no {what} of {_FAMILY.label}: this {pipeline} has {has} {name}")
    if prefix or what == "prior":
        return
    for name, value in index.items():
        if isinstance(value, list) and name not in (*parts, *_BESIDE) and not name.startswith(("_", _COMBINED)):
            raise CheckpointError(f"{folder} is a {pipeline} with a part {name!r}, which cannot be exported")
