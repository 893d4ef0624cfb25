"""Runs a request: prepares its samples, denoises them with progress and callbacks, and decodes them."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engines.bundle.bundle import Bundle
from ..engines.errors import UsageError
from .decode.decode import images_of, latents_of, pixels_of
from .denoise import Denoising, Sample
from .open_engines import Components
from .prepare import Preparer
from .prompt import InversionSource, TextualInversion
from .request.job import EmbedsJob
from .request.request import Request
from .request.resolve import resolve, resolve_embeds
from .request.settings import settings_of
from .result import Result, Timings, timed
from .step_callback import call_back

__all__ = ["Generation", "Progress", "settings_for_record"]

Progress = Callable[[int, int], None]


class Generation:
    """Generates images with a bundle's engines.

    Args:
        bundle: the bundle.
        components: its engines; they need not be open yet.
        textual_inversions: see :class:`~.prepare.Preparer`.
        words: see :class:`~.prepare.Preparer`.

    Attributes:
        denoising: runs the loop, and holds the batches that it uses again.
        preparer: makes the samples.

    """

    def __init__(
        self,
        bundle: Bundle,
        components: Components,
        textual_inversions: Sequence[InversionSource],
        words: Sequence[TextualInversion] = (),
    ) -> None:
        self.bundle = bundle
        self.components = components
        self.denoising = Denoising(components)
        self.preparer = Preparer(bundle, components, textual_inversions, words)

    def close(self) -> None:
        """Release the batches that are held for later requests."""
        self.denoising.close()

    def prepare(self, request: Request) -> list[Sample]:
        """Make a request's samples, for a caller who denoises and decodes them.

        Raises:
            UsageError: an argument is invalid, or has a meaning only where the images are decoded too.

        """
        if request.callback_on_step_end is not None:
            raise UsageError("prepare() takes no step: loop over denoise() in place of callback_on_step_end")
        if request.output_type != "pil":
            raise UsageError(
                f"output_type={request.output_type!r}: decode() gives PIL images; a sample's latent is sample.latent"
            )
        return self.preparer.prepare(resolve(request, self.bundle), Timings())

    def decode(self, samples: Sequence[Sample]) -> list[Image.Image]:
        """Decode samples to images; the decoder's warnings are added to the samples'.

        Raises:
            UsageError: a sample was prepared with another bundle.

        """
        images = []
        for sample in self.denoising.check(samples, loras=False):
            warnings: list[str] = []
            images += images_of(self.components, [sample], warnings)
            sample.warnings = tuple(dict.fromkeys((*sample.warnings, *warnings)))
        return images

    def run(self, request: Request, progress: Progress | None, *, pipeline: Any, load_ms: float) -> Result:
        """Run a request from its arguments to its images.

        Args:
            request: what to generate.
            progress: see :meth:`~sdengine.runtime.pipeline.Pipeline.generate`.
            pipeline: the first argument of the request's callbacks.
            load_ms: milliseconds that loading took, for the result.

        """
        timings, started = Timings(load=load_ms), time.perf_counter()
        if request.output_type == "embeds":
            return self._run_embeds(request, progress, pipeline, timings, started)
        job = resolve(request, self.bundle)
        samples = self.preparer.prepare(job, timings)
        warnings = [*samples[0].warnings]
        with timed(timings, "denoise"):
            prior = _prior_stage(request, [sample.before for sample in samples])
            image = _StageRun(
                samples=samples,
                name="callback_on_step_end",
                callback=request.callback_on_step_end,
                tensors=request.callback_on_step_end_tensor_inputs,
            )
            self._denoise([prior, image], progress, pipeline, timings, warnings)
        with timed(timings, "decode"):
            images = self._decode(request.output_type, samples, warnings)
        timings.total = (time.perf_counter() - started) * 1e3
        return self._result(
            images,
            image_embeds=_embeds(samples, "image_embeds"),
            negative_image_embeds=_embeds(samples, "negative_image_embeds"),
            nsfw_content_detected=_flags(samples),
            seeds=tuple(sample.seed for sample in samples),
            height=job.height if job.crop is None else job.crop.image.height,
            width=job.width if job.crop is None else job.crop.image.width,
            timings=timings,
            warnings=warnings,
            settings=settings_for_record(request, samples),
        )

    def _run_embeds(
        self, request: Request, progress: Progress | None, pipeline: Any, timings: Timings, started: float
    ) -> Result:
        """Run a request for embeddings of images; see :meth:`run`."""
        job = resolve_embeds(request, self.bundle)
        prepared = self.preparer.embeds(job, timings)
        warnings = prepared.warnings
        with timed(timings, "denoise"):
            prior = _prior_stage(request, [embeds.before for embeds in prepared.embeds])
            self._denoise([prior], progress, pipeline, timings, warnings)
        with timed(timings, "decode"):
            positive = np.stack([embeds.positive.value() for embeds in prepared.embeds])
            negative = np.stack([embeds.negative.value() for embeds in prepared.embeds if embeds.negative is not None])
        timings.total = (time.perf_counter() - started) * 1e3
        return self._result(
            positive,
            image_embeds=positive,
            negative_image_embeds=negative,
            seeds=prepared.seeds,
            height=0,
            width=0,
            timings=timings,
            warnings=warnings,
            settings={**settings_of(request), **(_stage_settings(job) if prior.samples else {})},
        )

    def _result(self, images: Any, *, timings: Timings, warnings: Sequence[str], **fields: Any) -> Result:
        """Return a request's result, with what the engines say of it."""
        return Result(
            images=images,
            engines=dict(self.components.ran),
            fallbacks=tuple(self.components.fallbacks),
            auto_ms=self.components.auto_ms,
            timings_ms=timings,
            warnings=tuple(dict.fromkeys([*self.components.notes, *warnings])),
            **fields,
        )

    def _denoise(
        self,
        stages: "Sequence[_StageRun]",
        progress: Progress | None,
        pipeline: Any,
        timings: Timings,
        warnings: list[str],
    ) -> None:
        """Denoise the stages one after the other, and call each stage's callback after its steps."""
        stages = [stage for stage in stages if stage.samples]
        done, total = 0, sum(self._launches(stage.samples) for stage in stages)
        if progress is not None:
            progress(done, total)
        for stage in stages:
            samples, callback = stage.samples, stage.callback
            evaluations = samples[0].evaluations
            captured = self.components.captures_loop(*samples[0].components)
            if callback is not None and captured:
                warnings.append(f"{stage.name} reads each step: cuda_graph=loop has no effect on this request")
            watched = callback is not None or (progress is not None and not captured)
            with contextlib.closing(self.denoising.steps(samples, watched=watched, times=timings.steps)) as steps:
                for step in steps:
                    done += step.evaluations
                    if progress is not None:
                        progress(done, total)
                    if callback is not None:
                        call_back(
                            self.components,
                            callback,
                            stage.tensors,
                            step,
                            pipeline=pipeline,
                            guidance=pipeline.guidance_change,
                            warnings=warnings,
                        )
                    if pipeline.interrupt:
                        position = step.samples[0].position
                        warnings.append(f"interrupted after {position} of {evaluations} evaluations")
                        return

    def _launches(self, samples: Sequence[Sample]) -> int:
        """Return how many launches the samples of one request take, in batches as large as the bundle allows."""
        most = self.components.spec(samples[0].components[-1]).axes["S"].max
        return samples[0].evaluations * -(-len(samples) // most)

    def _decode(self, output: str, samples: Sequence[Sample], warnings: list[str]) -> Any:
        if output == "latent":
            return latents_of(self.components, samples)
        decode: Callable[..., Any] = pixels_of if output == "np" else images_of
        return decode(self.components, samples, warnings)


@dataclass(frozen=True, kw_only=True)
class _StageRun:
    """One stage of a request: the prior's or the image's.

    Attributes:
        samples: of the stage.
        callback: called at each of their steps, or None.
        name: the argument of the request that the callback came in.
        tensors: names of the tensors that it gets.

    """

    samples: Sequence[Sample]
    name: str
    callback: Callable[..., Any] | None
    tensors: Sequence[str] = ("latents",)


def _prior_stage(request: Request, before: Sequence[Sequence[Sample]]) -> _StageRun:
    """Return the prior's stage, its samples in diffusers' order: those of all prompts, then of all negative prompts.

    Args:
        request: the request.
        before: for each image, the samples of the prior that it waits for; without a prior there are none.

    """
    samples = dict.fromkeys(sample for column in zip_longest(*before) for sample in column if sample is not None)
    callback = request.prior_callback_on_step_end
    return _StageRun(samples=list(samples), name="prior_callback_on_step_end", callback=callback)


def _embeds(samples: Sequence[Sample], name: str) -> NDArray[np.float32] | None:
    """Return the embeddings that the images were conditioned on, [N, D]; None if one of them has none."""
    embeds = [sample.embeds[name] for sample in samples if name in sample.embeds]
    return np.stack(embeds) if len(embeds) == len(samples) else None


def _flags(samples: Sequence[Sample]) -> list[bool] | None:
    """Return what the safety checker has said of each image; None where it has looked at none."""
    flags = [sample.nsfw for sample in samples if sample.nsfw is not None]
    return flags or None


def settings_for_record(request: Request, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the settings that a request's images were generated with, defaults filled in, as JSON values."""
    schedule, job = samples[0].schedule, samples[0].job
    settings = {**settings_of(request), "scheduler": schedule.solver, "num_inference_steps": schedule.steps}
    if job is not None:
        settings |= {"guidance_scale": job.guidance_scale}
        settings |= _stage_settings(job) if any(sample.before for sample in samples) else {}
    return settings


def _stage_settings(job: EmbedsJob) -> dict[str, Any]:
    """Return the settings of the stages before the image."""
    return {
        f"{stage.stage.network}_{name}": value
        for stage in job.stages
        for name, value in (("num_inference_steps", stage.steps), ("guidance_scale", stage.guidance_scale))
    }
