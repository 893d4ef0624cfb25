"""The pipeline: encode, condition, denoise, decode."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.bundle import Bundle
from ..engines.engine import Array
from ..engines.errors import BundleError, NonFiniteError, UsageError
from ..engines.ladder import FallbackPolicy
from ..engines.nets.config import UNetConfig
from ..engines.nets.text_config import TextEncoderConfig
from .components import Components
from .conditions import conditioner_inputs, time_ids
from .guidance import Guidance, guidance_for
from .loop import Blend, Control, denoise
from .picture import pictures_from_pixels
from .prompt import (
    TEXT_FAMILIES,
    EncodedPrompts,
    TextEncoder,
    TextualInversion,
    Tokenizer,
    encode_prompts,
    load_inversion,
    with_inversions,
)
from .request import Request
from .resolve import Job, resolve, settings_of
from .result import Result, Timings
from .schedule import Schedule, make_schedule
from .seeds import NoiseStreams, streams_for
from .watermark import add_watermark, watermark_available

__all__ = ["Pipeline"]

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


class Pipeline:
    """A bundle, ready to draw.

    Build it with :meth:`load`; use it as a context manager or call :meth:`close`.

    Attributes:
        bundle: the bundle.
        components: its open engines.

    """

    def __init__(
        self, bundle: Bundle, components: Components, load_ms: float, inversions: Sequence[TextualInversion] = ()
    ) -> None:
        self.bundle = bundle
        self.components = components
        self._load_ms = load_ms
        self._scheduler = bundle.scheduler()
        encoders = list(_text_encoders(bundle, components))
        self._encoders = tuple(with_inversions(encoders, inversions) if inversions else encoders)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        engine: str = "auto",
        precision: str | None = None,
        fallback: FallbackPolicy | None = None,
        low_memory: bool = False,
        threads: int | None = None,
        textual_inversions: Sequence[str | Path] = (),
    ) -> "Pipeline":
        """Open a bundle.

        Args:
            path: the bundle's folder.
            engine: ``auto``, ``onnxruntime``, ``torch``, ...
            precision: ``fp32``, ``bf16`` or ``fp16``; None takes the first that engine and bundle have.
            fallback: ``error`` or ``allow``; None is ``allow`` for ``auto`` and ``error`` for a named engine.
            low_memory: keep one component open at a time; slower, with the peak memory of the largest component.
            threads: for one operator; None lets the engine choose.
            textual_inversions: ``.safetensors`` files with embeddings of new words; a word is the file's name, or
                what the file says.

        Raises:
            UsageError: a textual inversion does not fit the text encoders.
            BundleError: the bundle is missing or damaged.
            EngineError: no engine can run it.

        """
        started = time.perf_counter()
        bundle = Bundle(path)
        inversions = [load_inversion(file) for file in textual_inversions]
        components = Components(
            bundle, engine=engine, precision=precision, fallback=fallback, low_memory=low_memory, threads=threads
        )
        wanted = (*_encoder_names(bundle), "conditioner", "denoiser", "vae_decoder")
        try:
            components.open(wanted)
            return cls(bundle, components, (time.perf_counter() - started) * 1e3, inversions)
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
        """Release all engines."""
        self.components.close()

    def __call__(self, prompt: Any = None, **settings: Any) -> Result:
        """Draw.

        Args:
            prompt: text, or a list of texts.
            settings: see :class:`~sdengine.runtime.request.Request`.

        Raises:
            UsageError: an argument is unknown or cannot be met.
            NonFiniteError: a network produced NaN or infinity.
            EngineError: an engine failed.

        """
        return self.draw(Request.from_settings({"prompt": prompt, **settings}))

    def draw(self, request: Request, progress: Progress | None = None) -> Result:
        """Draw what a request asks for; see :meth:`__call__`.

        Args:
            request: what to draw.
            progress: called with (evaluations done, evaluations in all), before the first and after each.

        """
        timings, started = Timings(load=self._load_ms), time.perf_counter()
        job = resolve(request, self.bundle)
        schedule = self._schedule(job)
        streams = streams_for(request.seed, request.generator, job.images, request.rng)
        with _timed(timings, "text"):
            prompts = self._encode(job)
        parts = []
        most = self._spec("denoiser").axes["S"].max
        tick = _ticker(progress, schedule.evaluations * -(-job.images // most))
        for start in range(0, job.images, most):
            stop = min(start + most, job.images)
            noise = streams.select(start, stop)
            parts.append(self._draw_batch(job, schedule, prompts, noise, range(start, stop), timings, tick))
        latents = np.concatenate(parts)
        if not np.isfinite(latents).all():
            raise NonFiniteError(
                f"the denoiser produced NaN or infinity on {self.components.ran.get('denoiser')}; "
                "draw with another engine or export with --precision fp32"
            )
        with _timed(timings, "decode"):
            images, warnings = self._finish(job, latents)
        timings.total = (time.perf_counter() - started) * 1e3
        return Result(
            images=images,
            seeds=streams.seeds,
            height=job.height,
            width=job.width,
            engines=dict(self.components.ran),
            fallbacks=tuple(self.components.fallbacks),
            timings_ms=timings,
            warnings=(*prompts.warnings, *warnings),
            settings={
                "scheduler": schedule.solver,
                "num_inference_steps": schedule.steps,
                "guidance_scale": job.guidance_scale,
                **settings_of(request),
            },
        )

    # -- stages ------------------------------------------------------------------------------------------------------

    def _schedule(self, job: Job) -> Schedule:
        request = job.request
        overrides = dict(request.scheduler_config or {})
        return make_schedule(
            self._scheduler,
            num_inference_steps=job.steps,
            solver=request.scheduler,
            overrides=overrides,
            timesteps=request.timesteps,
            sigmas=request.sigmas,
            strength=job.strength,
            denoising_start=request.denoising_start,
            denoising_end=request.denoising_end,
            eta=request.eta,
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
        noise: NoiseStreams,
        samples: Sequence[int],
        timings: Timings,
        tick: Callable[[], None],
    ) -> F32:
        """Draw some of the job's images together; returns latents [S, C, h, w]."""
        request = job.request
        with _timed(timings, "encode"):
            latent, extra, blend = self._start(job, schedule, noise, samples)
        guidance = guidance_for(len(samples), job.guidance_scale, rescale=request.guidance_rescale, guided=job.guided)
        with _timed(timings, "condition"):
            of_prompt = [i // request.num_images_per_prompt for i in samples]
            conditions = self._condition("conditioner", job, prompts, of_prompt, guidance)
            if extra is not None:
                conditions["extra"] = extra
            hints = self._control_inputs(job, prompts, of_prompt, guidance, samples)
        names = self.bundle.manifest.controlnets[: len(hints)]
        with _timed(timings, "denoise"), self.components.use("denoiser", *names) as (denoiser, *nets):
            controls = [
                Control(engine=net, inputs=hint, scale=self._control_scale(job, i, schedule, guidance))
                for i, (net, hint) in enumerate(zip(nets, hints, strict=True))
            ]
            for step in denoise(
                denoiser, schedule, guidance, latent, conditions, noise, controls=controls, blend=blend
            ):
                timings.steps.append(step.milliseconds)
                tick()
                if request.callback_on_step_end is not None and step.last_of_step:
                    returned = request.callback_on_step_end(self, step.step, step.timestep, {"latents": step.latent})
                    if returned and "latents" in returned:
                        step.latent[:] = returned["latents"]
            return step.latent.copy()

    def _start(
        self, job: Job, schedule: Schedule, noise: NoiseStreams, samples: Sequence[int]
    ) -> tuple[F32, F32 | None, Blend | None]:
        """Return the initial latents, what an inpainting UNet sees beside them, and what to blend with.

        Each image's generator is used in the order in which diffusers uses it: the picture's encoding, the initial
        noise, the masked picture's encoding.
        """
        request = job.request
        unet = self.bundle.config("unet")
        assert isinstance(unet, UNetConfig)
        shape = (unet.out_channels, job.height // job.factor, job.width // job.factor)
        signal, level = schedule.start
        inpaint_unet = unet.in_channels > unet.out_channels
        needed = job.task == "image" or (job.task == "inpaint" and (not inpaint_unet or job.strength is not None))
        picture = self._picture_latents(job, noise, samples, shape) if needed else None
        given = _given_latents(request.latents, job.images, shape)
        fresh = None
        if request.denoising_start is not None and job.task == "image":
            assert picture is not None
            return picture, None, None
        fresh = noise.draw(shape) if given is None else given[list(samples)]
        latent = np.float32(level) * fresh
        if picture is not None and signal:
            latent = np.float32(signal) * picture + latent
        if job.task != "inpaint":
            return latent, None, None
        if request.denoising_start is not None:
            assert picture is not None
            latent = picture.copy()
        assert job.mask is not None
        mask = job.mask[:, None, :: job.factor, :: job.factor]
        mask = mask[[i % len(mask) for i in samples]]
        masked = self._masked_latents(job, noise, samples, shape, encode=inpaint_unet)
        if inpaint_unet:
            assert masked is not None
            return latent, np.ascontiguousarray(np.concatenate([mask, masked], axis=1)), None
        assert picture is not None
        return latent, None, Blend(mask=mask, known=picture, noise=fresh)

    def _picture_latents(self, job: Job, noise: NoiseStreams, samples: Sequence[int], shape: tuple[int, ...]) -> F32:
        if job.picture_latents is not None:
            latents = job.picture_latents
            return latents[[i % len(latents) for i in samples]]
        assert job.pixels is not None
        return self._encode_pixels(job.pixels, noise, samples, shape)

    def _encode_pixels(self, pixels: F32, noise: NoiseStreams, samples: Sequence[int], shape: tuple[int, ...]) -> F32:
        drawn = noise.draw(shape)
        found = []
        for place, i in enumerate(samples):
            inputs = {"image": pixels[i % len(pixels)][None], "noise": drawn[place : place + 1]}
            found.append(self.components.run("vae_encoder", inputs)["latent"])
        return np.concatenate(found).astype(np.float32)

    def _masked_latents(
        self, job: Job, noise: NoiseStreams, samples: Sequence[int], shape: tuple[int, ...], *, encode: bool
    ) -> F32 | None:
        """Encode the picture with its masked part grey; the noise is drawn even where the result is not needed."""
        given = job.request.masked_image_latents
        if given is not None:
            latents = np.asarray(given, np.float32)
            return latents[[i % len(latents) for i in samples]]
        if job.pixels is None:
            if encode:
                raise UsageError("an inpainting checkpoint needs image as a picture, or masked_image_latents")
            return None
        if not encode:
            noise.draw(shape)
            return None
        assert job.mask is not None
        count = max(len(job.pixels), len(job.mask))
        pixels = np.stack([job.pixels[i % len(job.pixels)] for i in range(count)])
        hole = np.stack([job.mask[i % len(job.mask)] for i in range(count)])[..., None] >= 0.5
        return self._encode_pixels(np.where(hole, np.float32(0.5), pixels), noise, samples, shape)

    def _condition(
        self, name: str, job: Job, prompts: EncodedPrompts, of_prompt: Sequence[int], guidance: Guidance
    ) -> dict[str, Array]:
        request = job.request
        aesthetic = bool(self.bundle.manifest.model_index.get("requires_aesthetics_score", False))
        sizes = time_ids(request, job.height, job.width, aesthetic=aesthetic, from_image=job.task != "text")
        inputs = conditioner_inputs(self._spec(name), prompts, of_prompt, guidance, sizes, job.guidance_scale)
        return self.components.run(name, inputs)

    def _control_inputs(
        self, job: Job, prompts: EncodedPrompts, of_prompt: Sequence[int], guidance: Guidance, samples: Sequence[int]
    ) -> list[dict[str, Array]]:
        found = []
        for name, pixels in zip(self.bundle.manifest.controlnets, job.hints, strict=False):
            inputs = self._condition(f"{name}_conditioner", job, prompts, of_prompt, guidance)
            chosen = np.ascontiguousarray(pixels[[i % len(pixels) for i in samples]])
            inputs["hint"] = self.components.run(f"{name}_hint", {"image": chosen})["hint"]
            found.append(inputs)
        return found

    def _control_scale(self, job: Job, net: int, schedule: Schedule, guidance: Guidance) -> F32:
        """Strength of each map of a ControlNet, [N, R, maps]."""
        config = self.bundle.config(self.bundle.manifest.controlnets[net])
        assert isinstance(config, UNetConfig)
        maps, count = len(config.maps()), schedule.evaluations
        by_map = np.full(maps, job.control_scales[net])
        by_row = np.ones(guidance.rows)
        if job.request.guess_mode:
            # As in the paper's repository: deeper maps weigh more, and rows without prompt get none.
            by_map *= np.logspace(-1, 0, maps)
            by_row[: guidance.negative_rows] = 0
        start, end = job.control_windows[net]
        i = np.arange(count)
        kept = ~((i / count < start) | ((i + 1) / count > end))
        scale = kept[:, None, None] * by_row[None, :, None] * by_map[None, None, :]
        return np.asarray(scale, np.float32)

    def _finish(self, job: Job, latents: F32) -> tuple[Any, list[str]]:
        """Decode, one image at a time, so that memory does not grow with the batch."""
        output = job.request.output_type
        if output == "latent":
            return latents, []
        pixels = np.concatenate(
            [self.components.run("vae_decoder", {"latent": latents[i : i + 1]})["image"] for i in range(len(latents))]
        ).astype(np.float32, copy=False)
        if not np.isfinite(pixels).all():
            raise NonFiniteError(
                f"the VAE produced NaN or infinity on {self.components.ran.get('vae_decoder')}; "
                "export with --precision fp32"
            )
        if self._watermarks(request := job.request):
            pixels = add_watermark(pixels)
        if request.output_type == "np":
            return pixels, []
        return pictures_from_pixels((pixels * 255).round().astype(np.uint8)), []

    def _watermarks(self, request: Request) -> bool:
        """Whether to put SDXL's watermark in: as diffusers, where the package is installed, unless told otherwise."""
        if request.watermark is None:
            return self.bundle.manifest.family.startswith("sdxl") and watermark_available()
        return request.watermark

    def _spec(self, name: str) -> Any:
        return next(iter(self.bundle.component(name).graphs.values())).spec


def _ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    """Count evaluations."""
    done = iter(range(total + 1))

    def tick() -> None:
        if progress is not None:
            progress(next(done), total)

    tick()
    return tick


def _given_latents(latents: Any, images: int, shape: tuple[int, ...]) -> F32 | None:
    if latents is None:
        return None
    array = np.asarray(latents.numpy() if hasattr(latents, "numpy") else latents, np.float32)
    if array.shape != (images, *shape):
        raise UsageError(f"latents have shape {list(array.shape)}; this request needs {[images, *shape]}")
    return array


def _encoder_names(bundle: Bundle) -> list[str]:
    return [name for name in bundle.manifest.networks if name.startswith("text_encoder")]


def _text_encoders(bundle: Bundle, components: Components) -> Iterator[TextEncoder]:
    for name in _encoder_names(bundle):
        config = bundle.config(name)
        assert isinstance(config, TextEncoderConfig)
        folder = name.replace("text_encoder", "tokenizer")
        if folder not in bundle.manifest.tokenizers:
            raise BundleError(f"{bundle.path} has {name} but no {folder}")
        tokenizer = Tokenizer.from_folder(bundle.file(bundle.manifest.tokenizers[folder]))
        pad = bundle.manifest.pad_tokens.get(folder)
        graph = next(iter(bundle.component(name).graphs.values()))

        def run(
            input_ids: NDArray[np.int64],
            attention_mask: NDArray[np.int64],
            layer: NDArray[np.int64],
            extra_embeddings: F32,
            /,
            name: str = name,
        ) -> tuple[F32, F32]:
            inputs: Mapping[str, Array] = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "layer": layer,
                "extra_embeddings": extra_embeddings,
            }
            outputs = components.run(name, {key: np.ascontiguousarray(value) for key, value in inputs.items()})
            return outputs["hidden"].astype(np.float32), outputs["pooled"].astype(np.float32)

        yield TextEncoder(
            name=name,
            tokenizer=tokenizer if pad is None else tokenizer.with_pad(pad),
            run=run,
            layers=config.layers,
            width=config.width,
            vocab_size=config.vocabulary,
            pooled_width=config.projection or config.width,
            max_batch=graph.spec.axes["B"].max,
        )


@contextmanager
def _timed(timings: Timings, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(timings, stage, getattr(timings, stage) + (time.perf_counter() - started) * 1e3)
