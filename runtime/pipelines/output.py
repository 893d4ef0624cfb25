"""What a call returns: as diffusers' outputs, by name, by key or by place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...engines.errors import UsageError, nearest
from ..result import Result
from .torch_values import tensor_of, torch_here

__all__ = ["OUTPUT_TYPES", "EmbedsOutput", "ImageOutput", "images_as"]

OUTPUT_TYPES = {"pil": "pil", "np": "np", "latent": "latent", "pt": "np"}
"""diffusers' output types, and what the pipeline is asked for."""


class _Output(Mapping[str, Any]):
    """Fields that can be had by name, by key or by place; as in diffusers, those that are None have no place."""

    result: Result
    _names: ClassVar[tuple[str, ...]]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know."""
        return self.result.warnings

    def to_tuple(self) -> tuple[Any, ...]:
        """Return what is there, without names."""
        return tuple(getattr(self, name) for name in self)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if getattr(self, name) is not None)

    def __len__(self) -> int:
        return len(self.to_tuple())

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self._names:
            raise KeyError(key)
        return getattr(self, key)


@dataclass(frozen=True, eq=False)
class ImageOutput(_Output):
    """The images of a call.

    Attributes:
        images: as asked for: PIL images, or arrays or tensors.
        nsfw_content_detected: of each image, whether the safety checker has flagged it, which makes it black; None
            where none has looked at them.
        result: everything about how they were made.

    """

    _names = ("images", "nsfw_content_detected")

    images: Any
    nsfw_content_detected: list[bool] | None
    result: Result


@dataclass(frozen=True, eq=False)
class EmbedsOutput(_Output):
    """The embeddings of a prior's call; ``decoder(**output)`` takes them.

    Attributes:
        image_embeds: float32 [N, D], what images are to be generated from.
        negative_image_embeds: the same of what guidance leads away from.
        result: everything about how they were made.

    """

    _names = ("image_embeds", "negative_image_embeds")

    image_embeds: Any
    negative_image_embeds: Any
    result: Result


def images_as(output_type: str, images: Any) -> Any:
    """Return what the pipeline gave as the output type asks for.

    Raises:
        UsageError: ``pt`` where nobody has imported torch.

    """
    if output_type == "pil":
        return images
    if output_type == "pt":
        if torch_here() is None:
            raise UsageError("output_type='pt' gives torch tensors: import torch, or take output_type='np'")
        return tensor_of(np.ascontiguousarray(np.transpose(images, (0, 3, 1, 2))))
    return tensor_of(images) if output_type == "latent" else images


def known_output_type(output_type: Any) -> str:
    """Return what to ask the pipeline for.

    Raises:
        UsageError: diffusers has no such output type.

    """
    if output_type not in OUTPUT_TYPES:
        known = ", ".join(OUTPUT_TYPES)
        raise UsageError(f"output_type={output_type!r} is none of {known}{nearest(output_type, OUTPUT_TYPES)}")
    return OUTPUT_TYPES[output_type]
