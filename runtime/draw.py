"""From a request to pictures: encode, condition, denoise, decode."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.bundle import Bundle
from ..engines.engine import Array
from ..engines.errors import NonFiniteError, UsageError
from ..engines.memory import Buffer, Memory
from ..engines.nets.config import UNetConfig
from .components import Components
from .conditions import conditioner_inputs, row_time_ids, time_ids
from .control import control_scale, hints_of
from .finite import decoded
from .guidance import Guidance, guidance_for
from .job_schedule import schedule_for
from .loop import Drawing, LoopShape, Step
from .loops import Loops
from .picture import pictures_from_pixels
from .prompt import (
    TEXT_FAMILIES,
    EncodedPrompts,
    InversionSource,
    encode_prompts,
    inversion_notes,
    load_inversions,
    with_inversions,
)
from .request import Request
from .resolve import Job, resolve, settings_of
from .result import Result, Timings
from .schedule import Schedule
from .seeds import NoiseStreams, streams_for
from .start import Start, start_for
from .text import text_encoders
from .watermark import add_watermark, watermark_available

__all__ = ["Drawer", "Progress"]

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


class Drawer:
    """The stages of drawing with one bundle, and what they keep from one picture to the next.

    Args:
        bundle: the bundle.
        components: its engines; they need not be open yet.
        textual_inversions: files with embeddings of new words; see :func:`~.prompt.load_inversions`.

    Raises:
        UsageError: a textual inversion does not fit the text encoders.
        BundleError: a tokenizer is missing.

    """

    def __init__(
        self, bundle: Bundle, components: Components, textual_inversions: Sequence[InversionSource] = ()
    ) -> None:
        self.bundle = bundle
        self.components = components
        self._loops = Loops(keep=not components.low_memory)
        self._scheduler = bundle.scheduler()
        inversions = [word for source in textual_inversions for word in load_inversions(source)]
        encoders = list(text_encoders(bundle, components))
        self._encoders = tuple(with_inversions(encoders, inversions) if inversions else encoders)
        self._notes = inversion_notes(encoders, inversions)

    def close(self) -> None:
        """Release what is kept for the next picture."""
        self._loops.close()

    def draw(self, request: Request, progress: Progress | None, *, pipeline: Any, load_ms: float) -> Result:
        """Draw what a request asks for.

        Args:
            request: what to draw.
            progress: see :meth:`~sdengine.runtime.pipeline.Pipeline.draw`.
            pipeline: what a callback is given first.
            load_ms: what loading took, for the result.

        """
        timings, started = Timings(load=load_ms), time.perf_counter()
        job = resolve(request, self.bundle)
        schedule = schedule_for(job, self._scheduler, strength=job.strength)
        streams = streams_for(request.seed, request.generator, job.images, request.rng)
        with _timed(timings, "text"):
            prompts = self._encode(job)
        warnings = [*self._notes, *job.warnings, *schedule.warnings, *prompts.warnings]
        with _timed(timings, "encode"):
            start = self._start(job, schedule, streams, warnings)
        parts: list[Buffer] = []
        most = self._spec("denoiser").axes["S"].max
        tick = _Ticker(progress, schedule.evaluations * -(-job.images // most))
        for first in range(0, job.images, most):
            samples = range(first, min(first + most, job.images))
            if pipeline.interrupt:  # these have not been begun
                parts.append(start.select(samples.start, samples.stop).latent)
                continue
            parts.append(
                self._draw_batch(job, schedule, prompts, start, streams, samples, timings, tick, warnings, pipeline)
            )
        with _timed(timings, "decode"):
            images = self._finish(job, parts, warnings)
        timings.total = (time.perf_counter() - started) * 1e3
        return Result(
            images=images,
            seeds=streams.seeds,
            height=job.height if job.crop is None else job.crop.picture.height,
            width=job.width if job.crop is None else job.crop.picture.width,
            engines=dict(self.components.ran),
            fallbacks=tuple(self.components.fallbacks),
            timings_ms=timings,
            warnings=tuple(dict.fromkeys([*self.components.notes, *warnings])),
            settings={
                **settings_of(request),
                "scheduler": schedule.solver,
                "num_inference_steps": schedule.steps,
                "guidance_scale": job.guidance_scale,
            },
        )

    # -- stages ------------------------------------------------------------------------------------------------------

    def _start(self, job: Job, schedule: Schedule, noise: NoiseStreams, warnings: list[str]) -> Start:
        unet = self.bundle.config("unet")
        assert isinstance(unet, UNetConfig)
        # Latents given for inpainting are scaled as if there were no picture, whatever the strength.
        from_noise = schedule if job.strength is None else schedule_for(job, self._scheduler, strength=None)
        return start_for(
            job,
            unet,
            self.components,
            noise,
            levels=schedule.start,
            from_noise=from_noise.start[1],
            warnings=warnings,
        )

    def _encode(self, job: Job) -> EncodedPrompts:
        index = self.bundle.manifest.model_index
        return encode_prompts(
            self._encoders,
            job.prompts,
            family=TEXT_FAMILIES[self.bundle.manifest.family],
            guidance=job.guided,
            force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
        )

    def _draw_batch(
        self,
        job: Job,
        schedule: Schedule,
        prompts: EncodedPrompts,
        start: Start,
        streams: NoiseStreams,
        samples: range,
        timings: Timings,
        tick: "_Ticker",
        warnings: list[str],
        pipeline: Any,
    ) -> Buffer:
        """Draw some of the job's images together; returns latents [S, C, h, w], where the decoder works."""
        request = job.request
        part, noise = start.select(samples.start, samples.stop), streams.select(samples.start, samples.stop)
        guidance = guidance_for(len(samples), job.guidance_scale, rescale=request.guidance_rescale, guided=job.guided)
        names = self.bundle.manifest.controlnets[: len(job.hints)]
        with _timed(timings, "condition"):
            memory = self.components.memory_of("denoiser", *names)
            inputs = {**self._condition(memory, "conditioner", job, prompts, guidance, streams, samples), **part.inputs}
            hints = self._control_inputs(memory, job, prompts, guidance, streams, samples)
        shape = LoopShape(
            samples=len(samples),
            rows=guidance.rows,
            tokens=prompts.hidden.shape[1],
            height=part.latent.shape[2],
            width=part.latent.shape[3],
            evaluations=schedule.evaluations,
        )
        with (
            _timed(timings, "denoise"),
            self.components.use("denoiser", *names) as (denoiser, *nets),
            self._loops.use(denoiser, nets, shape, record=self.components.records_loop("denoiser", *names)) as loop,
        ):
            scales = [self._control_scale(job, i, schedule, guidance) for i in range(len(nets))]
            loop.load(
                Drawing(
                    schedule=schedule,
                    guidance=guidance,
                    latent=part.latent,
                    inputs=inputs,
                    noise=noise,
                    controls=hints,
                    control_scales=scales,
                )
            )
            callback = request.callback_on_step_end
            if callback is not None and loop.record:
                warnings.append("callback_on_step_end looks at each step: cuda_graph=loop is of no use to this request")
            for step in loop.steps(watched=callback is not None or (tick.watched and not loop.record)):
                tick(step.evaluation)
                if callback is not None:
                    self._call_back(callback, pipeline, loop.memory, step)
                if pipeline.interrupt:
                    warnings.append(f"interrupted after {step.evaluation + 1} of {schedule.evaluations} evaluations")
                    break
            latents = self._kept(loop.memory, step.latents)
            timings.steps += loop.milliseconds()
            return latents

    def _kept(self, memory: Memory, latents: Sequence[Buffer]) -> Buffer:
        """Copy latents out of the loop's own buffers, which belong to whoever draws next, to where they are decoded."""
        there = self.components.memory_of("vae_decoder")
        if there is not memory:
            return np.stack([memory.read(latent) for latent in latents])
        copy = there.zeros((len(latents), *latents[0].shape), latents[0].dtype)
        for i, latent in enumerate(latents):
            there.copy(copy[i], latent)
        return copy

    def _call_back(
        self, callback: Callable[..., Mapping[str, Any] | None], pipeline: Any, memory: Memory, step: Step
    ) -> None:
        given = np.stack([memory.read(latent) for latent in step.latents])
        returned = dict(callback(pipeline, step.evaluation, step.timestep, {"latents": given}) or {})
        latents = returned.pop("latents", given)
        if returned:
            raise UsageError(f"callback_on_step_end returned {', '.join(returned)}: only latents can be changed")
        if np.shape(latents) != given.shape:
            raise UsageError(
                f"callback_on_step_end returned latents of shape {list(np.shape(latents))}, not {list(given.shape)}"
            )
        for target, latent in zip(step.latents, np.asarray(latents, np.float32), strict=True):
            memory.copy(target, latent)

    def _condition(
        self,
        memory: Memory,
        name: str,
        job: Job,
        prompts: EncodedPrompts,
        guidance: Guidance,
        streams: NoiseStreams,
        samples: range,
    ) -> dict[str, Buffer]:
        request = job.request
        aesthetic = bool(self.bundle.manifest.model_index.get("requires_aesthetics_score", False))
        sizes = time_ids(request, job.height, job.width, aesthetic=aesthetic, from_image=job.task != "text")
        # Generators ask for diffusers to the letter, seeds for images that do not depend on those beside them.
        alternate = job.task == "text" and streams.kind != "own"
        by_row = row_time_ids(sizes, guidance, samples, job.images, alternate=alternate)
        of_prompt = [i // request.num_images_per_prompt for i in samples]
        inputs = conditioner_inputs(self._spec(name), prompts, of_prompt, guidance, by_row, job.guidance_scale)
        return dict(self.components.run_into(memory, name, inputs))

    def _control_inputs(
        self,
        memory: Memory,
        job: Job,
        prompts: EncodedPrompts,
        guidance: Guidance,
        streams: NoiseStreams,
        samples: range,
    ) -> list[dict[str, Buffer]]:
        found = []
        for name, pixels in zip(self.bundle.manifest.controlnets, job.hints, strict=False):
            inputs = self._condition(memory, f"{name}_conditioner", job, prompts, guidance, streams, samples)
            image = hints_of(pixels, samples, job.images)
            inputs |= self.components.run_into(memory, f"{name}_hint", {"image": image})
            found.append(inputs)
        return found

    def _control_scale(self, job: Job, net: int, schedule: Schedule, guidance: Guidance) -> F32:
        config = self.bundle.config(self.bundle.manifest.controlnets[net])
        assert isinstance(config, UNetConfig)
        return control_scale(job, net, config, guidance, schedule.evaluations)

    def _finish(self, job: Job, parts: Sequence[Buffer], warnings: list[str]) -> Any:
        """Decode, one image at a time, so that memory does not grow with the batch."""
        output = job.request.output_type
        if output == "latent":
            return np.concatenate([self._checked(part) for part in parts])
        marked = self._watermarks(job.request)
        wanted = "image" if marked or output == "np" else "picture"
        pixels = np.concatenate([self._decoded(part, wanted, warnings) for part in parts])
        if marked:
            pixels = add_watermark(pixels)
        if output == "np":
            return pixels
        if marked:
            pixels = (pixels * 255).round().astype(np.uint8)
        pictures = pictures_from_pixels(pixels)
        return pictures if job.crop is None else [job.crop.paste(picture) for picture in pictures]

    def _decoded(self, latents: Buffer, wanted: str, warnings: list[str]) -> Array:
        """Decode latents [S, C, h, w] to the decoder's output ``wanted``, [S, H, W, 3]."""
        try:
            found = [decoded(self.components, latents[i : i + 1], wanted, warnings) for i in range(latents.shape[0])]
        except NonFiniteError:
            self._checked(latents)  # the denoiser's error, where it is to blame
            raise
        return np.concatenate(found)

    def _checked(self, there: Buffer) -> F32:
        latents = self.components.memory_of("vae_decoder").read(there)
        if not np.isfinite(latents).all():
            raise NonFiniteError(
                f"the denoiser produced NaN or infinity on {self.components.ran.get('denoiser')}; "
                "draw with another engine or export with --precision fp32"
            )
        return np.asarray(latents, np.float32)

    def _watermarks(self, request: Request) -> bool:
        """Whether to put SDXL's watermark in: as diffusers, where the package is installed, unless told otherwise."""
        if request.watermark is None:
            return self.bundle.manifest.family.startswith("sdxl") and watermark_available()
        return request.watermark

    def _spec(self, name: str) -> Any:
        return next(iter(self.bundle.component(name).graphs.values())).spec


class _Ticker:
    """Counts evaluations.

    Attributes:
        watched: whether anybody is told.

    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.watched = progress is not None
        self._progress = progress
        self._total = total
        self._before = 0
        self._last = -1
        self._tell()

    def __call__(self, evaluation: int) -> None:
        """Tell that a batch has got as far as an evaluation."""
        if evaluation <= self._last:  # the next batch has begun
            self._before += self._last + 1
        self._last = evaluation
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._before + self._last + 1, self._total)


@contextlib.contextmanager
def _timed(timings: Timings, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(timings, stage, getattr(timings, stage) + (time.perf_counter() - started) * 1e3)
