"""The safety checker of a checkpoint in diffusers' layout: whether it is exported, and how images come to it."""

from collections.abc import Mapping
from pathlib import Path

from ...engines.errors import CheckpointError, UsageError
from .component import CheckpointComponent
from .image_processor import clip_image_settings

__all__ = ["FEATURE_EXTRACTOR", "SAFETY_CHECKER", "checker_settings", "is_taken"]

SAFETY_CHECKER = "safety_checker"
FEATURE_EXTRACTOR = "feature_extractor.json"
"""In a bundle: how images are prepared for the safety checker."""

_CLASS = "StableDiffusionSafetyChecker"
_WITHOUT = "--no-safety-checker (safety_checker=None) exports the checkpoint without"


def is_taken(folder: Path, present: Mapping[str, str], wanted: bool | None, notes: list[str]) -> bool:
    """Return whether the checkpoint's safety checker is exported.

    Args:
        folder: the checkpoint's.
        present: class of each of its parts.
        wanted: whether to; None where it has one.
        notes: where to say that it is left out.

    Raises:
        UsageError: it is wanted, and there is none.
        CheckpointError: its folder is missing, or it is of a class that cannot be compiled.

    """
    class_name = present.get(SAFETY_CHECKER)
    used = "text_encoder_2" not in present  # neither SDXL's nor its refiner's
    if class_name is None or not used:
        if wanted:
            raise UsageError(f"{folder} has no safety checker that could be exported; leave out --safety-checker")
        if class_name is not None:
            notes.append("the safety checker is left out: pipelines of SDXL have none")
        return False
    if wanted is False:
        notes.append("the safety checker is left out")
        return False
    if class_name != _CLASS:
        raise CheckpointError(
            f"{folder} has a safety checker of the class {class_name}; {_CLASS} can be exported. {_WITHOUT}"
        )
    if not (folder / SAFETY_CHECKER / "config.json").is_file():
        raise CheckpointError(f"{folder} names a safety checker, but {folder / SAFETY_CHECKER} has none. {_WITHOUT}")
    return True


def checker_settings(
    folder: Path, present: Mapping[str, str], checker: CheckpointComponent, notes: list[str]
) -> dict[str, dict[str, object]]:
    """Return the bundle's file that says how images are prepared for a safety checker.

    Raises:
        CheckpointError: they are prepared in a way that is not supported.

    """
    if "feature_extractor" not in present:
        notes.append("there is no feature_extractor: images are prepared for the safety checker as CLIP does")
    size = checker.config.get("image_size")
    return {FEATURE_EXTRACTOR: clip_image_settings(folder / "feature_extractor", size, "safety checker")}
