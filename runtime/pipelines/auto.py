"""diffusers' automatic pipelines: the task is in the name, the family is the checkpoint's."""

from pathlib import Path
from typing import Any, ClassVar

from ...engines.errors import CheckpointError, UsageError
from . import classes
from .calls import CALLS, DECODERS, call_of_checkpoint, class_for
from .from_pretrained import opening_for
from .opening import Opening
from .pipeline import DiffusionPipeline, remade

__all__ = ["AutoPipelineForImage2Image", "AutoPipelineForInpainting", "AutoPipelineForText2Image"]


class _AutoPipeline:
    """Chooses a class by the checkpoint."""

    _task: ClassVar[str]

    def __init__(self, *_: object, **__: object) -> None:
        raise UsageError(f"make one with {type(self).__name__}.from_pretrained() or from_pipe()")

    @classmethod
    def from_pretrained(cls, pretrained_model_or_path: str | Path, **options: Any) -> Any:
        """Open a checkpoint, or a bundle; see :meth:`.DiffusionPipeline.from_pretrained`.

        Raises:
            CheckpointError: there is no such checkpoint, or it is of another family.
            UsageError: an option is unknown or cannot be met.

        """
        opening, scheduler, watermark = opening_for(pretrained_model_or_path, options)
        named = str(opening.index().get("_class_name"))
        controlled = bool(opening.controlnets) or (opening.source.is_bundle and "ControlNet" in named)
        return cls._class(named, controlled=controlled)._of(opening, scheduler, watermark)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> Any:
        """Make a pipeline for this task of another's checkpoint; engines are shared.

        Raises:
            UsageError: an option is unknown.

        """

        def choose(opening: Opening) -> type[DiffusionPipeline]:
            controlled = bool(opening.controlnets) or (opening.source.is_bundle and pipeline._call.controlled)
            return cls._class(type(pipeline).__name__, controlled=controlled)

        return remade(pipeline, options, choose)

    @classmethod
    def _class(cls, named: str, *, controlled: bool) -> type[DiffusionPipeline]:
        own = call_of_checkpoint(named)
        if own is None:
            raise CheckpointError(f"the checkpoint is a {named}; there are {', '.join((*CALLS, *DECODERS))}")
        call = class_for(own.label, cls._task, controlled=controlled, distilled=own.distilled)
        found: type[DiffusionPipeline] = getattr(classes, call.name)
        return found


class AutoPipelineForText2Image(_AutoPipeline):
    """Text-to-image."""

    _task = "text"


class AutoPipelineForImage2Image(_AutoPipeline):
    """Image-to-image."""

    _task = "image"


class AutoPipelineForInpainting(_AutoPipeline):
    """Inpainting."""

    _task = "inpaint"
