"""diffusers' pipelines, by their names: code that was written for them runs with one import changed.

They translate. What draws is :class:`sdengine.runtime.Pipeline`; a checkpoint is exported at its first use
(:mod:`.bundle_cache`).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from ...engines.bundle.bundle import Bundle
from ...engines.errors import CheckpointError, UsageError, nearest
from ...engines.families import FAMILIES
from ...engines.scheduler_fixes import fixed_scheduler, fixes_for
from ..request.request import Request
from ..result import Result
from .adapter_methods import AdapterMethods
from .attributes import CONSTANTS, NOTED, OPENING_NOTED, REFUSED
from .calls import CALLS, DECODERS, Call, call_of_checkpoint, class_for
from .encode_prompt import EncodePrompt
from .from_pretrained import LEFT_OUT, LOCATING, belongs, check_options, opening_for, with_parts
from .image_processor import ImageProcessor
from .last_call import LastCall
from .locate import located
from .opening import CHECKER, PARTS, Opening
from .output import ImageOutput, images_as
from .parts import PartOf, UnknownAttributeError, unwrapped
from .placement import Placement
from .say import note, progress
from .schedulers import SCHEDULERS, Config, Scheduler
from .text_parts import part_of
from .torch_values import default_generator
from .translate_call import translate_call

__all__ = ["DiffusionPipeline", "remade"]

_P = TypeVar("_P", bound="DiffusionPipeline")


class DiffusionPipeline(AdapterMethods, EncodePrompt, LastCall, Placement):
    """A pipeline of diffusers. Its subclasses have a task; ``from_pretrained`` of this one chooses among them.

    Made of another pipeline's parts, as diffusers' are: ``StableDiffusionImg2ImgPipeline(**pipe.components)``.
    """

    _call: ClassVar[Call]
    _preload: ClassVar[tuple[str, ...] | None] = None
    _scheduler: Any
    _watermark: bool | None
    _checked: bool
    _progress: Mapping[str, Any]
    _asked: Mapping[str, Any]
    _evaluations: int | None

    def __init__(self, **components: Any) -> None:
        if type(self) is DiffusionPipeline:
            raise UsageError("make a pipeline with from_pretrained(), or with a class that has a task")
        parts = [part for part in components.values() if isinstance(part, PartOf)]
        if not parts:
            raise UsageError(
                f"{type(self).__name__} is made of the parts of another pipeline, pipe.components; open a checkpoint "
                "with from_pretrained()"
            )
        first = next((part for part in parts if part.name == "unet"), parts[0])
        scheduler, watermark = (components.pop(name, None) for name in ("scheduler", "add_watermarker"))
        unchecked = components.get("safety_checker", ...) is None
        others = {name: part for name, part in components.items() if not belongs(part, first.opening)}
        self._begin(with_parts(first.opening, others), scheduler)
        self._watermark = watermark
        self._checked = not unchecked

    def _begin(self, opening: Opening, scheduler: Any) -> None:
        set_ = super().__setattr__
        set_("_opening", opening)
        set_("_scheduler", None)
        set_("_watermark", None)
        set_("_checked", True)
        set_("_progress", {})
        set_("_asked", {})
        set_("_evaluations", None)
        if scheduler is not None:
            self.scheduler = scheduler

    @classmethod
    def _of(
        cls, opening: Opening, scheduler: Any = None, watermark: bool | None = None, *, checked: bool = True
    ) -> Self:
        made = cls.__new__(cls)
        made._begin(opening, scheduler)
        made._watermark = watermark
        made._checked = checked
        made._check_family()
        return made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Open a checkpoint, or a bundle.

        Nothing is exported before the first use, since :meth:`to` may still say where and in what precision it runs.

        Args:
            pretrained_model_name_or_path: a folder, a name on the Hub, or a bundle's folder.
            options: diffusers' (``torch_dtype``, ``variant``, ``revision``, ``token``, ``local_files_only``, parts such
                as ``vae``, ``controlnet``, ``scheduler``), and ``engine``, ``sizes``, ``batch``, ``prior`` of a
                decoder, ``decoder`` of a prior.

        Raises:
            CheckpointError: there is no such checkpoint.
            UsageError: an option is unknown or cannot be met, or the checkpoint is of another family.

        """
        opening, scheduler, watermark = opening_for(pretrained_model_name_or_path, options)
        chosen = cls._class(opening)
        opening.change(preload=chosen._preload)
        return chosen._of(opening, scheduler, watermark)

    @classmethod
    def from_single_file(cls, pretrained_model_link_or_path: str | Path, **options: Any) -> Self:
        """Open a checkpoint of one file; see :meth:`from_pretrained`.

        Raises:
            CheckpointError: there is no such file.
            UsageError: an option is unknown or cannot be met.

        """
        if cls is DiffusionPipeline:
            raise UsageError("from_single_file needs a class that has a task, such as StableDiffusionXLPipeline")
        opening, scheduler, watermark = opening_for(pretrained_model_link_or_path, options)
        return cls._of(opening, scheduler, watermark)

    @classmethod
    def from_pipe(cls, pipeline: "DiffusionPipeline", **options: Any) -> Self:
        """Make a pipeline for another task of the same checkpoint; engines are shared.

        Args:
            pipeline: the one to share with.
            options: parts that are to be others' (``controlnet``, ``vae``, ``scheduler``, ...).

        Raises:
            UsageError: an option is unknown, or the checkpoint is not of this class's family.

        """
        return remade(pipeline, options, cls._class)

    @classmethod
    def download(cls, pretrained_model_name: str | Path, **options: Any) -> str:
        """Fetch a checkpoint from the Hub into its local cache; return the folder."""
        locating = {name: options.pop(name) for name in LOCATING if name in options}
        check_options(options)
        return str(located(pretrained_model_name, say=progress, **locating).path)

    @classmethod
    def _class(cls, opening: Opening) -> type[Self]:
        """Return the class to make: this one, or the checkpoint's own."""
        if cls is not DiffusionPipeline:
            return cls
        from . import classes

        name = opening.pipeline_class or str(opening.index().get("_class_name"))
        call = call_of_checkpoint(name)
        if call is None:
            raise CheckpointError(f"{opening.source.name} is a {name}; there are {', '.join((*CALLS, *DECODERS))}")
        if opening.controlnets:
            call = class_for(call.label, call.task, controlled=True, distilled=False)
        chosen: type[Self] = getattr(classes, call.name)
        return chosen

    def _check_family(self) -> None:
        """Check that the checkpoint is of the class's family, as far as that is known before it is exported."""
        call, source = self._call, self._opening.source
        if self._opening.controlnets and not call.controlled:
            raise UsageError(f"{call.name} has no ControlNet; {_relative(call, controlled=True)} has")
        if call.controlled and not self._opening.controlnets and not source.is_bundle:
            raise UsageError(f"{call.name} needs controlnet=ControlNetModel.from_pretrained(...)")
        if source.is_bundle:
            bundle = Bundle(source.path)
            label = bundle.family.label
            if call.controlled and not bundle.manifest.controlnets:
                raise UsageError(f"{source.path} holds no ControlNet; export it with --controlnet PATH")
        elif source.path.is_dir():
            named = str(source.index().get("_class_name"))
            own = call_of_checkpoint(named)
            if own is None:
                raise CheckpointError(
                    f"the checkpoint is a {named}; those of {', '.join((*CALLS, *DECODERS))} can be exported"
                )
            label = own.label
        else:
            return
        if label != call.label:
            fitting = class_for(label, call.task, controlled=call.controlled, distilled=False).name
            raise UsageError(f"{source.name} is of the family {label}: take {fitting} in place of {call.name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Draw.

        Args:
            arguments: in the order of diffusers' class of this name.
            named: the others, by diffusers' names; and ``seed``, ``scheduler``, ``weighting`` and others of
                :class:`~sdengine.runtime.request.Request`.

        Returns:
            An :class:`.ImageOutput`, or a tuple of images with ``return_dict=False``.

        Raises:
            UsageError: an argument is unknown or cannot be met.
            SdengineError: the checkpoint cannot be exported, or an engine failed.

        """
        call = translate_call(self._call, arguments, named, self)
        settings = call.settings
        settings.setdefault("scheduler", self._own_scheduler())
        settings.setdefault("watermark", self._watermark)
        settings.setdefault("safety_checker", None if self._checked else False)
        result = self._result(settings)
        flags = result.nsfw_content_detected
        output = ImageOutput(images_as(call.output_type, result.images), flags, result)
        if call.return_dict:
            return output
        return (output.images, flags) if self._call.label == "SD" else (output.images,)

    def _result(self, settings: dict[str, Any]) -> Result:
        """Run a request, and say what a user should know about it."""
        seeded = settings.get("generator") is not None or settings.get("seed") is not None
        if not seeded:
            settings["generator"] = default_generator(self._opening.options.device or "cpu")
        own = self._opening.options.adapters.of_call(settings)
        request = Request.from_settings(**{name: value for name, value in own.items() if value is not None})
        super().__setattr__("_asked", settings)
        pipeline = self._opening.pipeline()
        with self._shown_progress(pipeline, request) as shown:
            result = pipeline.generate(request, shown)
        for text in result.warnings:
            if seeded or not text.startswith("generator:"):  # nobody has given this one
                note(text)
        for fallback in result.fallbacks:
            note(f"{fallback.skipped} skipped: {fallback.reason}")
        return result

    @contextlib.contextmanager
    def _shown_progress(self, pipeline: Any, request: Request) -> Iterator[Callable[[int, int], None]]:
        """Show the steps on a terminal, as diffusers does, unless ``set_progress_bar_config(disable=True)``."""
        from ..cli.console import step_progress

        most = pipeline.components.spec("denoiser").axes["S"].max
        launches = -(-request.prompts * request.num_images_per_prompt // most)
        with step_progress(self._progress.get("desc") or "drawing", quiet=bool(self._progress.get("disable"))) as bar:

            def shown(done: int, total: int) -> None:
                object.__setattr__(self, "_evaluations", total // launches)
                bar(done, total)

            yield shown

    @property
    def scheduler(self) -> Any:
        """The scheduler: the one that was set, else the checkpoint's. Any of diffusers, or of this package, can be."""
        if self._scheduler is not None:
            return self._scheduler
        config = self._opening.scheduler_config()
        name = str(config.get("_class_name"))
        if name not in SCHEDULERS:
            raise UsageError(f"the checkpoint's scheduler is {name}{nearest(name, SCHEDULERS)}")
        fixes = fixes_for(self._family(), self._named_class(), self._call.task, controlled=self._call.controlled)
        return SCHEDULERS[name].from_config(fixed_scheduler(config, fixes))

    @scheduler.setter
    def scheduler(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "config"):
            raise UsageError(
                f"scheduler is an object such as EulerDiscreteScheduler.from_config(...), not {scheduler!r}"
            )
        super().__setattr__("_scheduler", scheduler)

    def _own_scheduler(self) -> Any:
        return self._scheduler.own_config if isinstance(self._scheduler, Scheduler) else self._scheduler

    def _usual_guidance_scale(self) -> float:
        family, call = FAMILIES[self._family()], self._call
        return family.defaults_for(self._named_class(), call.task, controlled=call.controlled).guidance_scale

    def _named_class(self) -> str:
        return str(self._opening.index().get("_class_name", ""))

    def _family(self) -> str:
        return next(name for name, family in FAMILIES.items() if family.label == self._call.label)

    @property
    def components(self) -> dict[str, Any]:
        """The parts, for another pipeline: networks and tokenizers, the scheduler, and ControlNets."""
        source = self._opening.source
        index = self._opening.index() if source.path.is_dir() and not source.is_bundle else {}
        names = [name for name in PARTS if name not in CHECKER and (not index or index.get(name) is not None)]
        parts: dict[str, Any] = {name: part_of(self._opening, name) for name in names}
        if FAMILIES[self._family()].safety_checker is not None:
            looks = self._checked and self._opening.has_safety_checker
            parts |= {name: part_of(self._opening, name) if looks else None for name in CHECKER}
        if self._call.controlled:
            parts["controlnet"] = PartOf(self._opening, "controlnet")
        # A single file's is known once it has been exported, which asking for the parts does not do.
        has_scheduler = self._scheduler is not None or not self._opening.source.path.is_file()
        return parts | {"scheduler": self.scheduler if has_scheduler else None}

    @property
    def config(self) -> Config:
        """The checkpoint's ``model_index.json``."""
        return Config({**self._opening.index(), "_name_or_path": self._opening.source.name})

    @property
    def name_or_path(self) -> str:
        """What was opened."""
        return self._opening.source.name

    @property
    def bundle(self) -> Path:
        """The folder of the bundle that is drawn with; asking for it exports the checkpoint."""
        return self._opening.bundle()

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent."""
        channels = self.vae.config.block_out_channels
        return int(2 ** (len(channels) - 1))

    def set_progress_bar_config(self, **options: Any) -> None:
        """Set options of the bar: ``disable`` and ``desc`` are obeyed, others of tqdm's have no meaning here."""
        super().__setattr__("_progress", options)

    @staticmethod
    def numpy_to_pil(images: Any) -> list[Any]:
        """Return PIL images of an array [N, H, W, 3] of 0 to 1."""
        from ..decode.image_file import images_from_pixels

        array = images if images.ndim == 4 else images[None]
        return images_from_pixels((array * 255).round().astype("uint8"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_opening":
            raise AttributeError(name)
        if name in PARTS or (name == "controlnet" and self._call.controlled):
            return self.components.get(name)
        if name in (*LEFT_OUT, "watermark"):
            return None
        if name in ("image_processor", "mask_processor", "control_image_processor"):
            return ImageProcessor()
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in NOTED:
            return self._noted(name)
        if name in REFUSED:
            raise UnknownAttributeError(f"{name}: {REFUSED[name]}")
        raise UnknownAttributeError(f"{type(self).__name__} has no {name!r}{nearest(name, _names())}")

    def _noted(self, name: str) -> Callable[..., "DiffusionPipeline"]:
        def accepted(*_: object, **__: object) -> "DiffusionPipeline":
            note(f"{name}() changes nothing: {NOTED[name]}")
            return self

        return accepted

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "safety_checker":
            self._set_safety_checker(value)
        elif name in (*PARTS, "controlnet"):
            part = unwrapped(value)
            if not isinstance(part, PartOf) or part.opening is not self._opening or part.name != name:
                raise UnknownAttributeError(f"{name} cannot be replaced here: give it to from_pretrained({name}=...)")
            if part is not value:
                note(f"torch.compile of the {name} changes nothing: it is compiled already")
        elif name == "watermark":
            super().__setattr__("_watermark", False if value is None else None)
        elif name == "requires_safety_checker":
            note(f"{name} has no effect: {OPENING_NOTED[name]}")
        elif name in ("scheduler", "_asked", "_checked", "_guidance_scale", "_interrupt", "_watermark"):
            super().__setattr__(name, value)
        else:
            raise UnknownAttributeError(
                f"{type(self).__name__}.{name} cannot be set{nearest(name, [*PARTS, 'scheduler', '_interrupt'])}"
            )

    def _set_safety_checker(self, value: Any) -> None:
        own = isinstance(value, PartOf) and value.opening is self._opening and value.name == "safety_checker"
        if value is not None and not own:
            raise UnknownAttributeError(
                "safety_checker cannot be replaced here: give it to from_pretrained(safety_checker=...); "
                "pipe.safety_checker = None switches it off"
            )
        if own and not self._opening.has_safety_checker:
            raise UnknownAttributeError("safety_checker: it was left out when the checkpoint was opened")
        super().__setattr__("_checked", own)


def remade(pipeline: DiffusionPipeline, options: Mapping[str, Any], choose: Callable[[Opening], type[_P]]) -> _P:
    """Make a pipeline of another class from a pipeline's checkpoint and engines.

    Args:
        pipeline: the one to share with.
        options: of ``from_pipe``: parts that are to be others', ``scheduler``, ``torch_dtype``.
        choose: returns the class for what is opened.

    Raises:
        UsageError: it is no pipeline of this package, an option is unknown, or the class is of another family.

    """
    if not isinstance(pipeline, DiffusionPipeline):
        raise UsageError(
            f"from_pipe takes a pipeline of this package, not {type(pipeline).__name__}; "
            "from_pretrained opens a checkpoint"
        )
    parts = {name: value for name, value in options.items() if value is not None or name == "controlnet"}
    checked = pipeline._checked if "safety_checker" not in options else options["safety_checker"] is not None
    scheduler = parts.pop("scheduler", pipeline._scheduler)
    watermark = parts.pop("add_watermarker", pipeline._watermark)
    dtype = [parts.pop(name) for name in ("torch_dtype", "dtype") if name in parts]
    opening = with_parts(pipeline._opening, parts)
    made = choose(opening)._of(opening, scheduler, watermark, checked=checked)
    return made.to(dtype[0]) if dtype else made


def _names() -> list[str]:
    return [name for name in (*dir(DiffusionPipeline), *NOTED, *PARTS) if not name.startswith("_")]


def _relative(call: Call, *, controlled: bool) -> str:
    return class_for(call.label, call.task, controlled=controlled, distilled=False).name
