"""From a job to its samples: text encoded, conditions computed, latents started."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.bundle.bundle import Bundle
from ..engines.nets.config import UNetConfig
from .conditioning import CONDITIONS, Part, Preparation
from .conditioning.text_encoders import text_encoders
from .denoise.guidance import guidance_for
from .denoise.sample import DENOISER, Sample, initial_state, step_numbers
from .latents.seeds import NoiseStreams, streams_for
from .latents.start import Start, start_for
from .open_engines import Components
from .prior import ImageEmbeds, Prior
from .prompt import (
    EncodedPrompts,
    InversionSource,
    TextualInversion,
    encode_prompts,
    inversion_notes,
    load_inversions,
    with_inversions,
)
from .prompt.prompt_request import PromptRequest
from .request.job import EmbedsJob, Job
from .request.job_schedule import schedule_for
from .result import Timings, timed
from .schedule import Schedule

__all__ = ["PreparedEmbeds", "Preparer"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PreparedEmbeds:
    """What a request for embeddings of images needs: the embeddings, or the prior's samples that will become them.

    Attributes:
        embeds: one for each image.
        seeds: one for each image.
        warnings: what the user should know.

    """

    embeds: list[ImageEmbeds]
    seeds: tuple[int, ...]
    warnings: list[str]


class Preparer:
    """Makes samples with one bundle; the text encoders and the scheduler's config are read once for all requests.

    Args:
        bundle: the bundle.
        components: its engines; they need not be open yet.
        textual_inversions: files with embeddings of new words; see :func:`~.prompt.load_inversions`.
        words: further new words with their embeddings, which have been read from LoRAs.

    Attributes:
        encoders: the text encoders; they know the new words.

    Raises:
        UsageError: a textual inversion does not fit the text encoders.
        BundleError: a tokenizer is missing.

    """

    def __init__(
        self,
        bundle: Bundle,
        components: Components,
        textual_inversions: Sequence[InversionSource] = (),
        words: Sequence[TextualInversion] = (),
    ) -> None:
        self.bundle = bundle
        self.components = components
        self._scheduler = bundle.scheduler()
        sources = [textual_inversions] if isinstance(textual_inversions, (str, Path)) else textual_inversions
        inversions = [*(word for source in sources for word in load_inversions(source)), *words]
        encoders = list(text_encoders(bundle, components))
        self.encoders = tuple(with_inversions(encoders, inversions) if inversions else encoders)
        self._notes = inversion_notes(encoders, inversions)
        self._prior = Prior(bundle, components, self._encode_both) if bundle.family.stages else None

    def prepare(self, job: Job, timings: Timings) -> list[Sample]:
        """Make the samples of a job.

        Args:
            job: the job.
            timings: the time that each part took is added to it.

        Raises:
            UsageError: the job does not suit the bundle.
            NonFiniteError: the VAE produced NaN or infinity.

        """
        request = job.request
        schedule = schedule_for(job, self._scheduler, strength=job.strength)
        streams = streams_for(request.seed, request.generator, job.images, request.rng)
        guidance = guidance_for(
            job.guidance_scale,
            evaluations=schedule.evaluations,
            rescale=request.guidance_rescale,
            guided=job.guided,
        )
        warnings = [*self._notes, *job.warnings, *schedule.warnings]
        prompts, embeds = None, list[ImageEmbeds]()
        with timed(timings, "text"):
            if self._prior is None:
                prompts = self.encode(job.prompts, guidance=job.guided)
                warnings += prompts.warnings
            else:
                embeds = self._prior.prepare(job, streams, guided=job.guided, warnings=warnings)
        with timed(timings, "encode"):
            start = self._start(job, schedule, streams, warnings)
        with timed(timings, "condition"):
            conditions = [CONDITIONS[name] for name in self.bundle.family.conditions]
            names = (*chain.from_iterable(c.components(job, self.bundle) for c in conditions), DENOISER)
            preparation = Preparation(
                job=job,
                schedule=schedule,
                guidance=guidance,
                prompts=prompts,
                embeds=embeds,
                start=start,
                streams=streams,
                components=self.components,
                memory=self.components.memory_of(*names),
            )
            parts = [condition.prepare(preparation) for condition in conditions]
        common = Part(numbers={DENOISER: step_numbers(schedule, guidance)})
        weights = self.components.weights_of(names)
        samples = []
        for i, parts_of_image in enumerate(zip(*parts, strict=True)):
            joined = _joined([common, *parts_of_image])
            samples.append(
                Sample(
                    schedule=schedule,
                    rows=guidance.rows,
                    components=names,
                    inputs=joined.inputs,
                    numbers=joined.numbers,
                    runs=joined.runs,
                    noise=streams.stream(i),
                    state=initial_state(start.latent[i]),
                    weights=weights,
                    seed=streams.seeds[i],
                    job=job,
                    index=i,
                    warnings=tuple(warnings),
                    text=joined.text,
                    guidance_scale=job.guidance_scale,
                    before=joined.before,
                    _on_begin=joined.begin,
                )
            )
        return samples

    def embeds(self, job: EmbedsJob, timings: Timings) -> PreparedEmbeds:
        """Return a job's embeddings of images, or the prior's samples that will become them.

        Only the prior's noise is taken from the generators.

        Args:
            job: the job.
            timings: the time that each part took is added to it.

        Raises:
            UsageError: the job does not suit the bundle.

        """
        assert self._prior is not None
        request = job.request
        streams = streams_for(request.seed, request.generator, job.images, request.rng)
        warnings = [*self._notes, *job.warnings]
        with timed(timings, "text"):
            embeds = self._prior.prepare(job, streams, guided=True, warnings=warnings)
        return PreparedEmbeds(embeds=embeds, seeds=tuple(streams.seeds), warnings=warnings)

    def _start(self, job: Job, schedule: Schedule, noise: NoiseStreams, warnings: list[str]) -> Start:
        unet = self.bundle.config("unet")
        assert isinstance(unet, UNetConfig)
        # The caller's latents for inpainting are scaled as if there were no image, whatever the strength.
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

    def _encode_both(self, prompts: PromptRequest) -> EncodedPrompts:
        """Encode prompts and negative prompts; a negative prompt that is not set is the empty text."""
        return encode_prompts(self.encoders, prompts, family=self.bundle.family.text, guidance=True)

    def encode(self, prompts: PromptRequest, *, guidance: bool) -> EncodedPrompts:
        """Encode prompts, and with guidance the negative prompts, as the family's diffusers pipelines do.

        Raises:
            UsageError: a prompt, or embeddings in its place, do not suit the text encoders.

        """
        index = self.bundle.manifest.model_index
        return encode_prompts(
            self.encoders,
            prompts,
            family=self.bundle.family.text,
            guidance=guidance,
            force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
        )


def _joined(parts: Sequence[Part]) -> Part:
    """Join the parts that all conditions have in one sample; at most one of them has a ``begin``."""
    begin = next((part.begin for part in parts if part.begin is not None), None)
    names = dict.fromkeys(name for part in parts for name in (*part.inputs, *part.numbers))
    return Part(
        inputs={n: {k: v for p in parts for k, v in p.inputs.get(n, {}).items()} for n in names},
        numbers={n: {k: v for p in parts for k, v in p.numbers.get(n, {}).items()} for n in names},
        runs={name: runs for part in parts for name, runs in part.runs.items()},
        text={name: array for part in parts for name, array in part.text.items()},
        before=tuple(chain.from_iterable(part.before for part in parts)),
        begin=begin,
    )
