"""A model family as data: everything that differs between families, except the shapes of networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Defaults", "Family", "Stage", "TextReading"]


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """How a family makes embeddings from text.

    Attributes:
        sources: which text each encoder reads; ``prompt_2`` is the prompt unless the request sets it.
        skipped_layers: how many layers before the last one the embeddings are usually taken.
        pooled: whether the UNet also takes pooled embeddings.
        final_norm: whether the encoder's last norm is applied to the embeddings.
        embeddings: whether a request may bring embeddings of text in place of it.
        chunks: whether a text that is too long may be encoded in several parts.

    """

    sources: tuple[str, ...]
    skipped_layers: int
    pooled: bool
    final_norm: bool
    embeddings: bool = True
    chunks: bool = True


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Defaults of a request, as in the signatures of diffusers' pipelines (0.42)."""

    guidance_scale: float
    strength: float | None = None
    controlnet_conditioning_scale: float = 1.0
    num_inference_steps: int = 50


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Something that is denoised before the image, and conditions it.

    Attributes:
        network: its name; with ``_conditioner`` and ``_decoder`` behind it, those of the components beside the one
            that takes a step.
        scheduler: the bundle's file with its scheduler's config.
        guidance_scale: where a request says nothing.
        num_inference_steps: where a request says nothing.

    """

    network: str
    scheduler: str
    guidance_scale: float
    num_inference_steps: int

    @property
    def components(self) -> tuple[str, ...]:
        """Its components: what is prepared once, what takes a step, what makes the result of the last one."""
        return (f"{self.network}_conditioner", self.network, f"{self.network}_decoder")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Attributes:
        name: in manifests.
        label: its common name, which related families share.
        text_encoders: names of its text encoders, in order.
        text: how they are read.
        autoencoder: name of the network between pixels and latents.
        image_encoder: name of the network that embeds images, or None.
        safety_checker: name of the network that looks at the images, in bundles of checkpoints that have one, or None.
        stages: what is denoised before the image.
        conditions: what its samples are conditioned on, by the names of the runtime's conditions.
        defaults: by task (``text``, ``image``, ``inpaint``) and whether a ControlNet takes part.
        distilled_defaults: the same for checkpoints of latent consistency models, where they differ.
        own_arguments: arguments of a request that only families of this label have.
        watermark: whether diffusers marks its images where the package for that is installed.
        vae_overflows: whether its VAE overflows in float16, unless its config says that it does not.
        corrects_schedulers: whether diffusers' pipelines change scheduler configs that are out of date.
        resample: how images are resized.
        sizes: the size where a request names none, or one that the networks cannot generate: ``image`` takes that of
            the image where there is one, and refuses others than multiples of what a latent covers; ``rounded`` takes
            the bundle's, and rounds up.
        dilates_mask: whether the masked part grows by a latent, as the network was trained.
        strength_of_inpainting: whether inpainting takes a strength.

    """

    name: str
    label: str
    text_encoders: tuple[str, ...]
    text: TextReading
    autoencoder: str = "vae"
    image_encoder: str | None = None
    safety_checker: str | None = None
    stages: tuple[Stage, ...] = ()
    conditions: tuple[str, ...] = ("text", "inpainting", "controlnets")
    defaults: Mapping[tuple[str, bool], Defaults]
    distilled_defaults: Mapping[tuple[str, bool], Defaults] = field(default_factory=dict)
    own_arguments: tuple[str, ...] = ()
    watermark: bool = False
    vae_overflows: bool = False
    corrects_schedulers: bool = False
    resample: Literal["lanczos", "bicubic"] = "lanczos"
    sizes: Literal["image", "rounded"] = "image"
    dilates_mask: bool = False
    strength_of_inpainting: bool = True

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that every bundle of it has."""
        encoders = (*self.text_encoders, *([self.image_encoder] if self.image_encoder else []))
        return ("unet", self.autoencoder, *encoders, *(stage.network for stage in self.stages))

    def size_multiple(self, factor: int, levels: int) -> int:
        """Return what heights and widths have to be a multiple of, in pixels.

        Args:
            factor: pixels per latent.
            levels: of the UNet.

        """
        return factor * 2 ** (levels - 1) if self.sizes == "rounded" else factor

    def rounds_to(self, factor: int) -> int:
        """Return what heights and widths of text-to-image are multiples of, in pixels, rounded up where it rounds.

        Args:
            factor: pixels per latent.

        """
        return factor**2 if self.sizes == "rounded" else factor

    def defaults_for(self, pipeline_class: str, task: str, *, controlled: bool) -> Defaults:
        """Return the defaults of a task.

        Args:
            pipeline_class: ``_class_name`` of the checkpoint's ``model_index.json``; LCM's pipelines have their own.
            task: ``text``, ``image`` or ``inpaint``.
            controlled: whether a ControlNet takes part.

        """
        distilled = self.distilled_defaults if pipeline_class.startswith("LatentConsistencyModel") else {}
        return distilled.get((task, controlled)) or self.defaults[task, controlled]
