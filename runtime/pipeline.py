"""The pipeline: an open bundle that generates images."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..engines.argument_types import with_checked_types
from ..engines.bundle.bundle import Bundle
from ..engines.bundle.file_checks import HashPolicy
from ..engines.errors import UsageError, nearest
from ..engines.lora import LoraSource
from ..engines.opening_options import OpeningOptions
from ..engines.registry import FallbackPolicy
from .decode.vae_tiling import check_vae_tiling
from .denoise.guidance_change import GuidanceChange
from .denoise.interrupts import Interrupts
from .life import Life
from .loaded import Loaded
from .lora_folder import LoraFolder
from .lora_set import LoraSet, LoraSources
from .lora_switch import LoraSwitch
from .open_engines import Components
from .request.from_arguments import from_arguments
from .request.request import Request
from .result import Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from .denoise import Batch, Sample, Step
    from .generate import Progress
    from .prepare import Preparer
    from .prompt import InversionSource

__all__ = ["Pipeline"]


class _UnknownAttributeError(UsageError, AttributeError):
    """An attribute was set that a Pipeline does not have."""


class Pipeline:
    """A bundle, ready to generate images.

    Build it with :meth:`load`; use it as a context manager or call :meth:`close`, after which a call is an error.
    Several threads may use it at once; with ``low_memory`` they take turns. A forked process cannot use it, since the
    threads of its engines exist only in the process that opened it.

    A callback stops its call with ``pipeline._interrupt = True``, as in diffusers: the images are then decoded as
    they are. Other attributes cannot be set; what diffusers sets as an attribute is an argument of the call here.

    """

    __slots__ = (
        "_guidance_change",
        "_interrupts",
        "_life",
        "_load_ms",
        "_loras",
        "_turn",
    )

    def __init__(self, loras: LoraSwitch, *, load_ms: float) -> None:
        self._loras = loras
        self._load_ms = load_ms
        self._guidance_change = GuidanceChange()
        self._interrupts = Interrupts()
        self._life = Life(loras.close, loras.alive)
        self._turn = threading.RLock() if self.components.low_memory else contextlib.nullcontext()

    @property
    def bundle(self) -> Bundle:
        """The bundle, with the current LoRAs merged into its weights."""
        return self._loras.current.bundle

    @property
    def components(self) -> Components:
        """The engines that run with these weights."""
        return self._loras.current.components

    @property
    def preparer(self) -> "Preparer":
        """The preparer, which encodes prompts and makes samples with these weights."""
        return self._loras.current.generation.preparer

    @property
    def loras(self) -> list[dict[str, Any]]:
        """The current LoRAs: name, SHA-256, strength, kinds and how many weights they change."""
        return self._loras.current.loras.report

    def __setattr__(self, name: str, value: object) -> None:
        if not hasattr(type(self), name):
            instead = "; give it to the call" if name == "scheduler" else nearest(name, ["_interrupt"])
            raise _UnknownAttributeError(f"a Pipeline has no attribute {name!r}{instead}")
        super().__setattr__(name, value)

    @property
    def vae_tiling(self) -> str | int:
        """Whether large images are decoded and encoded in tiles, see :meth:`load`; may be set at any time."""
        return self.components.vae_tiling

    @vae_tiling.setter
    def vae_tiling(self, value: str | int) -> None:
        self.components.vae_tiling = check_vae_tiling(value)

    @property
    def interrupt(self) -> bool:
        """Whether the running call should stop."""
        return self._interrupts.requested

    @property
    def _interrupt(self) -> bool:
        return self._interrupts.requested

    @_interrupt.setter
    def _interrupt(self, stop: bool) -> None:
        self._interrupts.requested = stop

    @property
    def guidance_change(self) -> GuidanceChange:
        """The guidance scale that a callback can change, as ``pipeline._guidance_scale``."""
        return self._guidance_change

    @property
    def _guidance_scale(self) -> float:
        return self._guidance_change.scale

    @_guidance_scale.setter
    def _guidance_scale(self, scale: float) -> None:
        self._guidance_change.scale = scale

    @classmethod
    @with_checked_types
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        precision: str | None = None,
        fallback: FallbackPolicy | None = None,
        low_memory: bool = False,
        threads: int | None = None,
        device: str | None = None,
        cuda_graph: str | None = None,
        weight_streaming_budget: int | float | str | None = None,
        compile: bool | None = None,  # noqa: A002 - torch's own name for it
        memory_limit: int | None = None,
        vae_tiling: str | int = "auto",
        safety_checker: bool = True,
        textual_inversions: Sequence["InversionSource"] = (),
        loras: Sequence[LoraSource] = (),
        lora_folder: str | Path | None = None,
        verify: HashPolicy = "once",
        preload: Sequence[str] | None = None,
    ) -> "Pipeline":
        """Open a bundle.

        Args:
            path: the bundle's folder.
            engine: ``onnxruntime``, ``openvino``, ``torch``, ..., or ``auto``: the fastest on this machine, see
                :mod:`~sdengine.engines.fastest`.
            precision: ``fp32``, ``bf16`` or ``fp16``; None is the engine's first that the bundle has too.
            fallback: ``error`` or ``allow``; None is ``allow`` for ``auto`` and ``error`` for a named engine.
            low_memory: keep one component open at a time; slower, with the peak memory of the largest component.
            threads: how many threads an operator uses, on a CPU.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            cuda_graph: which launches are captured as one CUDA graph: those of a ``step``, of the whole ``loop``, or
                none (``off``); see :class:`~sdengine.engines.opening_options.OpeningOptions`.
            weight_streaming_budget: how much of a TensorRT plan's weights stays on the GPU, of plans that were built
                to stream them: bytes (int), a share (float), or ``auto``.
            compile: compile with ``torch.compile`` what the ``torch`` engine runs at every step; the first image of
                each size then takes minutes.
            memory_limit: most bytes that ONNX Runtime may take on a GPU for each open component; if that is too
                little, the run is an error. None is the memory that is free when the component is opened.
            vae_tiling: whether large images are decoded and encoded in overlapping tiles, which take less memory:
                ``on`` (the tiles of diffusers), ``off``, the side of a tile in pixels, or ``auto``: only if the whole
                image would not fit into the free memory, or is larger than the bundle's VAE takes.
            safety_checker: whether the safety checker looks at images, where the bundle holds one and a call does not
                say otherwise. It is opened when it is first needed.
            textual_inversions: files with embeddings of new words, or pairs of a file and the word (or the list of
                words, one for each row) to use; a file without a word uses the word in it, or its own name.
            loras: LoRAs to merge into the weights: files, or pairs of a file and its strength, see :meth:`set_loras`.
            lora_folder: a folder whose LoRAs may be named without their suffixes, here, in requests, and in prompts as
                ``<lora:NAME:STRENGTH>``.
            verify: when files are compared with their SHA-256 before they are used: ``always`` at every start;
                ``once`` skips files of more than 1 MiB that have not changed since an earlier start compared them;
                ``never`` skips the weights, and only them. The result's ``checks`` say what was compared.
            preload: components to open now, for callers who use a part of the bundle; others are opened when they are
                first used. None opens all that generating an image from text needs.

        Raises:
            UsageError: a textual inversion does not fit the text encoders, or a LoRA is for other networks.
            CheckpointError: a LoRA is damaged.
            BundleError: the bundle is missing or damaged.
            EngineError: no engine can run it.

        """
        started = time.perf_counter()
        plain = Bundle(path, verify=verify)
        folder = None if lora_folder is None else LoraFolder(lora_folder)
        sources = LoraSources.of(loras, folder)
        applied = LoraSet.read(sources, plain)
        bundle = applied.over(plain, check=low_memory)
        components = Components(
            bundle,
            engine=engine,
            precision=precision,
            fallback=fallback,
            low_memory=low_memory,
            vae_tiling=check_vae_tiling(vae_tiling),
            safety_checker=safety_checker,
            options=OpeningOptions(
                threads=threads,
                device=device,
                cuda_graph=cuda_graph,
                weight_streaming_budget=weight_streaming_budget,
                compile=compile,
                memory_limit=memory_limit,
            ),
        )
        stages = [name for stage in bundle.family.stages for name in stage.components]
        default_names = (*bundle.text_encoders, *stages, "conditioner", "denoiser", "vae_decoder")
        names = default_names if preload is None else tuple(preload)
        try:
            with components.opening(names):
                # Small engines open on other threads while this one imports the rest and reads the tokenizers.
                from .generate import Generation

                generation = Generation(bundle, components, textual_inversions, applied.words)
            loaded = Loaded(components, generation, applied)
            switch = LoraSwitch(loaded, plain=plain, usual=sources, folder=folder, inversions=textual_inversions)
            return cls(switch, load_ms=(time.perf_counter() - started) * 1e3)
        except BaseException:
            components.close()
            raise

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release all engines, when the running calls of other threads have ended; later calls are refused.

        Open batches are closed.
        """
        self._life.close()

    def set_loras(self, loras: Sequence[LoraSource]) -> None:
        """Merge these LoRAs into the weights, in place of the current ones; ``[]`` removes all.

        The weights are always computed from the exported ones and all LoRAs of the list, so that nothing of earlier
        LoRAs is left. Calls and batches that have begun end with the weights that they began with. Samples that were
        prepared but are in no batch yet cannot be denoised any more. If this fails, everything is as before.

        Args:
            loras: files, or pairs of a file and its strength: a number, or numbers by component and block as in
                diffusers' ``set_adapters``; with a ``lora_folder``, names in it.

        Raises:
            UsageError: a file is for other networks, holds what cannot be applied, or a strength is invalid.
            CheckpointError: a file is damaged.
            EngineError: an engine cannot take other weights; a plan must have been built with ``--refit``.

        """
        with self._life.use(), self._turn:
            self._loras.set(loras)

    @from_arguments(Request)
    def __call__(self, request: Request) -> Result:
        """Generate images.

        Args:
            request: its fields are the arguments of the call, see :class:`~sdengine.runtime.request.request.Request`;
                ``prompt`` may come first, without its name.

        Raises:
            UsageError: an argument is unknown or invalid, or the pipeline is closed.
            NonFiniteError: a network produced NaN or infinity.
            EngineError: an engine failed.

        """
        return self.generate(request)

    def generate(self, request: Request, progress: "Progress | None" = None) -> Result:
        """Generate the images of a request; see :meth:`__call__`.

        Args:
            request: its arguments.
            progress: called with (evaluations done, number of evaluations), before the first and after each.

        """
        request, sources = self._loras.of_request(request)
        with self._life.use(), self._turn, self._interrupts.call(), self._loras.use(sources) as (loaded, switch_ms):
            result = loaded.generation.run(request, progress, pipeline=self, load_ms=self._load_ms)
        result.timings_ms.loras = switch_ms
        loras = loaded.loras.report
        settings = {**result.settings, "loras": loras} if loras else result.settings
        notes = loaded.loras.notes
        if sources.scale != 1.0 and not loras:
            notes.append("cross_attention_kwargs: scale has no effect, as there are no LoRAs")
        return replace(
            result,
            checks=self.bundle.checks.report(),
            loras=tuple(loras),
            settings=settings,
            warnings=tuple(dict.fromkeys([*result.warnings, *notes])),
        )

    def loras_of(self, request: Request) -> tuple[Request, LoraSources]:
        """Return a request without tags in its prompts, and the LoRAs that it is generated with.

        Raises:
            UsageError: a tag names a LoRA that does not exist, or prompts of one call name different ones.

        """
        return self._loras.of_request(request)

    @property
    def lora_names(self) -> list[str]:
        """The names that requests may use for LoRAs: those of the files that are in the ``lora_folder`` now."""
        return self._loras.names

    def has_lora(self, name: str) -> bool:
        """Whether requests may use a name for a LoRA: one of :attr:`lora_names`, or one with more of its path.

        Raises:
            UsageError: several LoRAs have this name.

        """
        return self._loras.has(name)

    def use_loras(self, sources: LoraSources) -> None:
        """Merge the LoRAs of the next requests into the weights now, so that those requests need not wait for it.

        Requests that name no LoRAs still use those of :meth:`set_loras`.
        """
        with self._life.use(), self._turn:
            self._loras.hold(sources)[0].let_go()

    @from_arguments(Request)
    def prepare(self, request: Request) -> "list[Sample]":
        """Make the samples of a request: text encoded, conditions computed, latents started.

        Args:
            request: as for :meth:`__call__`, except ``callback_on_step_end`` and ``output_type``.

        Returns:
            One sample for each image.

        Raises:
            UsageError: an argument is unknown or invalid, or the pipeline is closed.
            NonFiniteError: the VAE produced NaN or infinity.
            EngineError: an engine failed.

        """
        request, sources = self._loras.of_request(request)
        with self._life.use(), self._turn, self._loras.use(sources) as (loaded, _):
            return loaded.generation.prepare(request)

    def batch(self, sample: "Sample", *, slots: int = 1) -> "Batch":
        """Make a batch for samples that can share launches with this one; close it, or use it with ``with``.

        Args:
            sample: has the size, text length, ControlNets and weights that all samples of the batch will have. It is
                not put in.
            slots: the most samples that are in it at a time; at most as many as the bundle allows.

        Raises:
            UsageError: the bundle does not allow so many, or the sample was prepared with other weights.
            EngineError: an engine cannot be opened.

        """
        from ..engines.scalars import whole_number

        most = self.components.spec("denoiser").axes["S"].max
        slots = whole_number("slots", slots)
        if not 1 <= slots <= most:
            raise UsageError(f"slots={slots}: this bundle takes 1 to {most} samples at once; export with --batch")
        with self._life.use():
            loaded, _ = self._loras.hold()
            staged, use = bool(self.bundle.family.stages), self._life.use
            return loaded.generation.denoising.batch(
                sample, slots=slots, staged=staged, use=use, on_close=loaded.let_go
            )

    def denoise(self, samples: "Sequence[Sample]") -> "Iterator[Step]":
        """Run samples to their end, yielding after each launch; as many run together as the bundle allows.

        If the caller stops iterating early, the samples stay as they are, and can be denoised further.
        """
        with self._life.use():
            return self._steps(samples)

    def _steps(self, samples: "Sequence[Sample]") -> "Iterator[Step]":
        with (
            self._loras.use() as (loaded, _),
            contextlib.closing(loaded.generation.denoising.steps(samples)) as steps,
        ):
            while True:
                with self._life.use():  # while a step runs; the caller may never ask for the next one
                    step = next(steps, None)
                if step is None:
                    return
                yield step

    def decode(self, samples: "Sequence[Sample]") -> "list[Image]":
        """Decode samples to images, finished or not; the decoder's warnings are added to the samples'.

        Raises:
            NonFiniteError: a network produced NaN or infinity.
            EngineError: an engine failed.

        """
        with self._life.use(), self._turn, self._loras.use() as (loaded, _):
            return loaded.generation.decode(samples)
