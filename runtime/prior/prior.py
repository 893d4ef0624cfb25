"""The stage before the image: embeddings of images, denoised from text, encoded from images, or from the request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.memory import Buffer
from ...engines.nets.prior_config import PriorConfig
from ..denoise.guidance import guidance_for
from ..denoise.sample import Sample, initial_state, step_numbers
from ..latents.seeds import NoiseStreams
from ..open_engines import Components
from ..prompt import EncodedPrompts
from ..prompt.prompt_request import PromptRequest
from ..request.arrays import finite_array
from ..request.input_images import load_images
from ..request.job import EmbedsJob, StageJob
from ..schedule import Schedule, make_schedule
from .embedding import Denoised, Embedding, ImageEmbeds, Term
from .image_encoder import ImageEncoder

__all__ = ["Prior"]

F32 = NDArray[np.float32]
Encode = Callable[[PromptRequest], EncodedPrompts]


class Prior:
    """Makes the embeddings that a job's images are conditioned on, or the samples that will become them.

    Args:
        bundle: the bundle.
        components: its engines.
        encode: encodes prompts, negative ones too.

    """

    def __init__(self, bundle: Bundle, components: Components, encode: Encode) -> None:
        family = bundle.family
        [stage] = family.stages
        assert family.image_encoder is not None
        config = bundle.config(stage.network)
        assert isinstance(config, PriorConfig)
        self._components = components
        self._encode = encode
        self._name = stage.network
        self._config = config
        self._scheduler = bundle.scheduler(stage.scheduler)
        self._images = ImageEncoder(bundle, components, family.image_encoder)

    def prepare(self, job: EmbedsJob, streams: NoiseStreams, *, guided: bool, warnings: list[str]) -> list[ImageEmbeds]:
        """Return the embeddings that each image of a job is conditioned on.

        All noise of the prior is taken from the images' streams here, in the order in which diffusers' prior and
        decoder take it from one generator.

        Args:
            job: the job.
            streams: the noise of its images.
            guided: whether the images are guided, so that they have negative embeddings too.
            warnings: what the user should know is added to it.

        Raises:
            UsageError: the request does not suit the prior.

        """
        call = _Call(prior=self, job=job, streams=streams, warnings=warnings)
        if job.request.image_embeds is not None:
            positive, negative = self._from_request(job, guided=guided)
        elif job.request.images_and_prompts is not None:
            positive, negative = self._mixed(call)
        else:
            texts, negative_texts = call.text(job.prompts)
            positive = [Embedding.of(term) for term in texts]
            negative = [Embedding.of(term) for term in negative_texts]
        pairs = zip(positive, negative, strict=True)
        return [ImageEmbeds(positive=p, negative=n if guided else None) for p, n in pairs]

    def _from_request(self, job: EmbedsJob, *, guided: bool) -> tuple[list[Embedding], list[Embedding]]:
        """Return the embeddings in ``image_embeds`` and ``negative_image_embeds``, one for each image."""
        embeds, negative = job.request.image_embeds, job.request.negative_image_embeds
        if negative is None:
            negative = self._images.of_zeros()[None] if guided else np.zeros_like(embeds[:1])
        for name, array in (("image_embeds", embeds), ("negative_image_embeds", negative)):
            if array.shape[1] != self._config.embedding:
                raise UsageError(
                    f"{name} has a width of {array.shape[1]}; this checkpoint takes {self._config.embedding}"
                )
        if len(negative) not in (1, len(embeds)):
            raise UsageError(f"negative_image_embeds has {len(negative)} rows for {len(embeds)} image_embeds")
        per_prompt = job.images // len(embeds)
        positives = [Embedding.of(embeds[i // per_prompt]) for i in range(job.images)]
        return positives, [Embedding.of(negative[i // per_prompt % len(negative)]) for i in range(job.images)]

    def _mixed(self, call: "_Call") -> tuple[list[Embedding], list[Embedding]]:
        """Return weighted sums of embeddings of texts and images, as diffusers' ``interpolate`` makes them."""
        job = call.job
        request = job.request
        items, weights = request.images_and_prompts, request.weights
        assert weights is not None
        plain = replace(job.prompts, negative_prompt=request.negative_prior_prompt)
        terms: list[list[tuple[float, Term]]] = [[] for _ in range(job.images)]
        for weight, item in zip(weights, items, strict=True):
            is_text = isinstance(item, str)
            embeddings = call.text(replace(plain, prompt=item))[0] if is_text else [self._image_embedding(item, call)]
            for i in range(job.images):
                terms[i].append((float(weight), embeddings[i % len(embeddings)]))
        # diffusers runs the prior once more even without a negative prompt, so its noise is taken in any case.
        last = request.negative_prompt or ""
        of_text, of_zeros = call.text(replace(plain, prompt=last), needed=bool(last), needed_negative=not last)
        negative = of_text if last else of_zeros
        return [Embedding(terms=tuple(of_image)) for of_image in terms], [Embedding.of(term) for term in negative]

    def _image_embedding(self, item: Any, call: "_Call") -> F32:
        if hasattr(item, "detach"):  # a tensor, which diffusers takes as already preprocessed: [1, 3, size, size]
            return self._images.embed_prepared(finite_array("images_and_prompts", item, ndim=(4,)))
        images = load_images(item, "images_and_prompts", call.warnings, on_white=True)
        if len(images) != 1:
            raise UsageError("images_and_prompts: an entry is one text or one image")
        return self._images.embed(images[0])


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One job's use of the prior."""

    prior: Prior
    job: EmbedsJob
    streams: NoiseStreams
    warnings: list[str]

    def text(
        self, prompts: PromptRequest, *, needed: bool = True, needed_negative: bool = True
    ) -> tuple[Sequence[Term], Sequence[Term]]:
        """Return the embeddings, which the prior denoises, of all images of B prompts.

        Args:
            prompts: the prompts. With negative prompts, their embeddings are denoised too, from noise of their own;
                without, the negative embedding is the image encoder's embedding of zeros.
            needed: whether the prompts' embeddings are used; if not, only their noise is taken from the streams.
            needed_negative: the same for the negative prompts' embeddings.

        Returns:
            The embeddings of the prompts and of the negative prompts, one for each image.

        """
        prior, job = self.prior, self.job
        stage = job.stages[0]
        schedule = make_schedule(prior._scheduler, num_inference_steps=stage.steps)
        twice = prompts.negative_prompt is not None
        noise = self._noise(schedule, 2 if twice else 1)
        nothing: Sequence[Term] = ()
        if not needed and not (twice and needed_negative):
            return nothing, [prior._images.of_zeros()] * job.images if needed_negative else nothing
        encoded = prior._encode(prompts)
        self.warnings.extend(encoded.warnings)
        rows = self._rows(encoded)
        first = [of_image[0] for of_image in noise]
        positive = self._samples(rows, schedule, stage, first, negative=False) if needed else nothing
        if not needed_negative:
            return positive, nothing
        if not twice:
            return positive, [prior._images.of_zeros()] * job.images
        return positive, self._samples(rows, schedule, stage, [of_image[1] for of_image in noise], negative=True)

    def _noise(self, schedule: Schedule, groups: int) -> list[list[list[F32]]]:
        """Sample the noise of all images: [image][group] is a list, the initial noise and that of each evaluation."""
        shape = (self.prior._config.embedding, 1, 1)
        latents, images = self.job.request.latents, self.job.images
        if latents is not None and latents.ndim == 2:
            if latents.shape != (groups * images, shape[0]):
                raise UsageError(
                    f"latents, as the prior's, has shape {list(latents.shape)}; this request needs "
                    f"{[groups * images, shape[0]]}"
                )
            first = latents.reshape(groups, images, *shape)
        else:
            first = self.streams.normal_grouped(groups, shape)
        fresh = [self.streams.normal_grouped(groups, shape) for needed in schedule.needs_noise if needed]
        return [[[first[g, i], *(noise[g, i] for noise in fresh)] for g in range(groups)] for i in range(images)]

    def _rows(self, encoded: EncodedPrompts) -> list[Mapping[str, Buffer]]:
        """Run the prior's conditioner for each prompt; its outputs have two rows, the negative prompt's and its own."""
        prior = self.prior
        components, config = prior._components, prior._config
        if encoded.mask is None or encoded.hidden.shape[1] != config.tokens:
            raise UsageError(
                f"the text takes {encoded.hidden.shape[1]} tokens; the prior takes {config.tokens}, so "
                "long_prompt='chunk' and BREAK are not for it"
            )
        assert encoded.pooled is not None and encoded.negative_hidden is not None
        assert encoded.negative_pooled is not None and encoded.negative_mask is not None
        memory, parts = components.memory_of(prior._name), []
        for b in range(len(encoded.hidden)):
            inputs = {
                "hidden": np.stack([encoded.negative_hidden[b], encoded.hidden[b]]),
                "pooled": np.stack([encoded.negative_pooled[b], encoded.pooled[b]]),
                "text_mask": np.stack([encoded.negative_mask[b], encoded.mask[b]]),
            }
            parts.append(components.run_into(memory, f"{prior._name}_conditioner", inputs))
        return parts

    def _samples(
        self,
        rows: Sequence[Mapping[str, Buffer]],
        schedule: Schedule,
        stage: StageJob,
        noise: Sequence[list[F32]],
        *,
        negative: bool,
    ) -> list[Denoised]:
        """Make the prior's samples, one for each image.

        Args:
            rows: see :meth:`_rows`.
            schedule: of each sample.
            stage: has the guidance scale.
            noise: of each image, the initial noise and that of each evaluation.
            negative: whether to denoise the negative prompt; it has no guidance, as there is none against itself.

        """
        prior, job = self.prior, self.job
        name, components = prior._name, prior._components
        guided = stage.guidance_scale > 1 and not negative
        guidance = guidance_for(
            stage.guidance_scale if guided else 1.0, evaluations=schedule.evaluations, rescale=0.0, guided=guided
        )
        part = slice(0, 2) if guided else slice(0, 1) if negative else slice(1, 2)
        per_prompt = job.images // len(rows)
        numbers = {name: step_numbers(schedule, guidance)}
        weights = components.weights_of((name,))
        samples = []
        for i, (first, *fresh) in enumerate(noise):
            inputs = {tensor: buffer[part] for tensor, buffer in rows[i // per_prompt].items()}
            sample = Sample(
                schedule=schedule,
                rows=guidance.rows,
                components=(name,),
                inputs={name: inputs},
                numbers=numbers,
                noise=_Recorded(fresh),
                state=initial_state(np.float32(schedule.start[1]) * first),
                weights=weights,
                seed=self.streams.seeds[i],
                index=i,
            )
            samples.append(Denoised(sample=sample, decode=self._decode))
        return samples

    def _decode(self, latent: F32) -> F32:
        outputs = self.prior._components.run(f"{self.prior._name}_decoder", {"latent": latent[None]})
        return np.asarray(outputs["image_embeds"][0], np.float32)


class _Recorded:
    """Noise that has been sampled already."""

    def __init__(self, arrays: Sequence[F32]) -> None:
        self._arrays = iter(arrays)

    def normal(self, shape: tuple[int, ...]) -> F32:
        """Return the next numbers."""
        return next(self._arrays).reshape(shape)
