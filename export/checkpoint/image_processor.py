"""How images are prepared for a network of CLIP's: transformers' ``preprocessor_config.json``."""

from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError
from .json_file import read_json

__all__ = ["clip_image_settings"]

_CLIP: dict[str, object] = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": 224,
}
"""transformers' ``CLIPImageProcessor``."""
_FIXED = ("do_center_crop", "do_normalize", "do_rescale", "do_resize", "resample")


def clip_image_settings(folder: Path, size: object, network: str) -> dict[str, object]:
    """Return how images are prepared: as CLIP does, with the mean and deviation of the checkpoint.

    Args:
        folder: with ``preprocessor_config.json``; what is not there is as in CLIP.
        size: height and width of the images that the network takes, in pixels.
        network: what to call it in messages.

    Raises:
        CheckpointError: they are prepared in another way, or for images of another size.

    """
    file = folder / "preprocessor_config.json"
    config = read_json(file) if file.is_file() else {}
    settings = {name: config.get(name, default) for name, default in _CLIP.items()}
    for name in _FIXED:
        if settings[name] != _CLIP[name]:
            raise CheckpointError(f"{file} has {name}={settings[name]!r}; {_CLIP[name]!r} is supported")
    for name in ("size", "crop_size"):
        value: Any = settings[name]
        sides = set(value.values()) if isinstance(value, dict) else {value}
        if sides != {size}:
            raise CheckpointError(f"{file} has {name}={value!r}, the {network} takes {size} pixels")
    return {"mean": settings["image_mean"], "std": settings["image_std"], "rescale": settings["rescale_factor"]}
