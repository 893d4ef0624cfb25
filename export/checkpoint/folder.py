"""Reading a checkpoint in diffusers' layout: ``model_index.json`` and one subfolder per part."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError, nearest
from .component import Checkpoint, CheckpointComponent
from .configs import at_least_64, read_config
from .families import family_of
from .json_file import read_json
from .safety_checker import SAFETY_CHECKER, checker_settings, is_taken
from .tokenizer_folders import is_tokenizer, pad_token
from .weight_files import pick_weights, read_picked, variants_of_parts
from .weight_names import normalised, verbatim_file

__all__ = ["CLASSES", "is_checkpoint", "is_component", "read_component", "read_folder", "read_networks"]

_SEVERAL = "MultiControlNetModel"  # in folders controlnet/, controlnet_1/, controlnet_2/ ...

CLASSES: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "controlnet": ("ControlNetModel", _SEVERAL),
    SAFETY_CHECKER: ("StableDiffusionSafetyChecker",),
}
"""The classes that can be compiled, by component of Stable Diffusion."""

_WITH_PRIOR: dict[str, tuple[str, ...]] = {
    "movq": ("VQModel",),
    "prior": ("PriorTransformer",),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}
"""The same of a decoder and its prior, see :mod:`.with_prior`."""

_TOKENIZERS = ("tokenizer", "tokenizer_2")
_LEFT_OUT = {
    "image_encoder": "the image encoder (IP-Adapter) is left out",
    "feature_extractor": None,
    "watermark": None,
}


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a whole pipeline."""
    return (folder / "model_index.json").is_file()


def is_component(folder: Path) -> bool:
    """Whether the folder is one component."""
    return (folder / "config.json").is_file()


def read_folder(
    folder: Path,
    *,
    source: str,
    variant: str | None,
    replaced: Collection[str] = (),
    safety_checker: bool | None = None,
) -> Checkpoint:
    """Open a checkpoint in diffusers' layout.

    Args:
        folder: the folder with ``model_index.json``.
        source: what the user named.
        variant: ``fp16`` and the like, of the parts that have it; None takes the plain weights where there are some.
        replaced: components that will come from elsewhere and need not be here.
        safety_checker: whether its safety checker is taken; None where it has one.

    Raises:
        CheckpointError: it is incomplete, damaged, or of a pipeline with parts that cannot be compiled.
        UsageError: a safety checker is wanted, and it has none.

    """
    index = read_json(folder / "model_index.json")
    parts = {name: value for name, value in index.items() if _is_part(value) and not name.startswith("_")}
    present = {name: str(value[1]) for name, value in parts.items() if value[1] is not None}
    notes = [note for name, note in _LEFT_OUT.items() if note and name in present]
    if not is_taken(folder, present, safety_checker, notes):
        present.pop(SAFETY_CHECKER, None)
    _check_parts(folder, present, index.get("_class_name"))
    networks = {name: folder / name for name in CLASSES if name in present and name not in replaced}
    if present.get("controlnet") == _SEVERAL:
        networks |= _controlnets(folder)
    kinds = {name: "ControlNetModel" if name.startswith("controlnet") else present[name] for name in networks}
    components, more = read_networks(folder, networks, kinds, variant)
    notes += more
    if size := at_least_64(components["unet"].config, str(index.get("_class_name"))):
        unet = components["unet"]
        notes.append(f"unet: sample_size {unet.config['sample_size']}, written by an old diffusers, is taken as {size}")
        components["unet"] = replace(unet, config=unet.config | {"sample_size": size})
    tokenizers = {name: folder / name for name in _TOKENIZERS if name in present}
    for name, place in tokenizers.items():
        if not is_tokenizer(place):
            raise CheckpointError(f"{place} holds neither tokenizer.json nor vocab.json with merges.txt ({name})")
    settings = checker_settings(folder, present, components[SAFETY_CHECKER], notes) if SAFETY_CHECKER in present else {}
    encoders = {name: component.config for name, component in components.items() if name.startswith("text")}
    return Checkpoint(
        source=source,
        family=family_of(components["unet"].config, encoders),
        components=components,
        tokenizers=tokenizers,
        pad_tokens={name: pad_token(place) for name, place in tokenizers.items()},
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        model_index={name: value for name, value in index.items() if name not in parts and not _version(name)},
        settings=settings,
        notes=tuple(notes),
    )


def read_networks(
    folder: Path, networks: Mapping[str, Path], kinds: Mapping[str, str], variant: str | None
) -> tuple[dict[str, CheckpointComponent], list[str]]:
    """Open the networks of a pipeline; return them and notes on decisions.

    Args:
        folder: the pipeline's, for messages.
        networks: folder of each.
        kinds: class of each.
        variant: see :func:`read_folder`.

    Raises:
        CheckpointError: one is incomplete, damaged or of a class that cannot be compiled, or none has the variant.

    """
    variants, notes = _variants(folder, networks, variant)
    components = {}
    for name, place in networks.items():
        components[name], more = read_component(place, name, kinds[name], variants[name])
        notes += more
    return components, notes


def _controlnets(folder: Path) -> dict[str, Path]:
    """Return the folders of several ControlNets, as diffusers counts them, by the names that components have here."""
    folders = {"controlnet": folder / "controlnet"}
    while (place := folder / f"controlnet_{len(folders)}").is_dir():
        folders[f"controlnet_{len(folders) + 1}"] = place
    return folders


def _variants(
    folder: Path, networks: Mapping[str, Path], variant: str | None
) -> tuple[dict[str, str | None], list[str]]:
    """Return which weights each network takes: those of the variant, or the plain ones where it has none.

    Raises:
        CheckpointError: no network has the variant.

    """
    files = {name: _file_names(place) for name, place in networks.items()}
    chosen = variants_of_parts(files, variant, str(folder))
    return chosen, [
        f"{name}: it has no {variant} variant, its plain weights are taken"
        for name, own in chosen.items()
        if own != variant and pick_weights(files[name], None, str(networks[name])).variant is None
    ]


def _file_names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _is_part(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _version(name: str) -> bool:
    return name.startswith("_") and name != "_class_name"


def _check_parts(folder: Path, present: dict[str, str], pipeline: object) -> None:
    """Every part must be one that is compiled, or that can be left out by name."""
    for name, class_name in present.items():
        if name in CLASSES and class_name not in CLASSES[name]:
            raise CheckpointError(
                f"{folder} is a {pipeline} whose {name} is a {class_name}; "
                f"only {' and '.join(CLASSES[name])} can be exported"
            )
        if name not in (*CLASSES, *_TOKENIZERS, *_LEFT_OUT, "scheduler"):
            raise CheckpointError(
                f"{folder} is a {pipeline} with a part {name!r} ({class_name}), which cannot be exported; "
                "Stable Diffusion 1, 2, XL, its refiner, inpainting and distilled ones can"
            )
    pairs = [("unet", None), ("vae", None), ("scheduler", None), ("tokenizer", "text_encoder")]
    pairs += [("tokenizer_2", "text_encoder_2"), ("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
    missing = [name for name, partner in pairs if name not in present and (partner is None or partner in present)]
    if "text_encoder" not in present and "text_encoder_2" not in present:
        missing.append("text_encoder")
    if missing:
        raise CheckpointError(f"{folder / 'model_index.json'} names no {', '.join(missing)}, only {', '.join(present)}")


def read_component(
    folder: Path, name: str, class_name: str | None, variant: str | None
) -> tuple[CheckpointComponent, list[str]]:
    """Open one component; return it and notes on decisions.

    Args:
        folder: the folder with ``config.json`` and the weights.
        name: what to call it.
        class_name: its class, or None to take it from the config.
        variant: see :func:`read_folder`.

    Raises:
        CheckpointError: it is incomplete, damaged or of a class that cannot be compiled.

    """
    config = read_config(folder / "config.json", name)
    class_name = class_name or _class_of(config)
    known = (CLASSES | _WITH_PRIOR)["controlnet" if name.startswith("controlnet") else name]
    if class_name not in known:
        raise CheckpointError(
            f"{folder} holds a {class_name}, which cannot be a {name}; {' and '.join(known)} can"
            + nearest(str(class_name), known)
        )
    picked = pick_weights(_file_names(folder), variant, str(folder))
    stored = read_picked(folder, picked)
    tensors = normalised(class_name, stored)
    component = CheckpointComponent(
        name=name, class_name=class_name, config=config, tensors=tensors, file=verbatim_file(tensors, stored)
    )
    if picked.variant and variant is None:
        return component, [f"{name}: took the {picked.variant} variant, the plain weights are not there"]
    return component, []


def _class_of(config: dict[str, Any]) -> str | None:
    """Return the class that diffusers or transformers wrote into a config."""
    named = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    return named if isinstance(named, str) else None
