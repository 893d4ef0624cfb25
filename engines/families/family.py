"""A model family as data: everything that differs between families, except the networks' shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Defaults", "Family", "Stage", "TextReading"]


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """How a family makes embeddings from text.

    Attributes:
        sources: the argument that each encoder encodes; ``prompt_2`` is the prompt unless the request sets it.
        skipped_layers: how many of the encoder's last layers are skipped by default: 1 is its penultimate hidden state.
        pooled: whether the UNet also takes pooled embeddings.
        final_norm: whether the encoder's final layer norm is applied to the embeddings.
        embeddings: whether ``prompt_embeds`` are accepted in place of ``prompt``.
        chunks: whether a text that is too long may be encoded in several windows.

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
    """A stage before the image: an embedding that is denoised, and then conditions the image (Kandinsky's prior).

    Attributes:
        network: its network, and the component that takes a step; its other two components are ``NETWORK_conditioner``
            and ``NETWORK_decoder``.
        scheduler: the file in the bundle with its scheduler's config.
        guidance_scale: the default of a request.
        num_inference_steps: the default of a request.

    """

    network: str
    scheduler: str
    guidance_scale: float
    num_inference_steps: int

    @property
    def components(self) -> tuple[str, ...]:
        """Its components, in order: one that runs once before the steps, one that takes a step, one that runs after."""
        return (f"{self.network}_conditioner", self.network, f"{self.network}_decoder")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Attributes:
        name: its name in manifests.
        label: its name in messages, which related families share.
        text_encoders: names of its text encoders, in order.
        text: how prompts are encoded.
        autoencoder: name of the network between pixels and latents.
        image_encoder: name of the network that embeds images, or None.
        safety_checker: name of the network that checks the images, if the checkpoint has one, or None.
        stages: the stages before the image.
        conditions: what its samples are conditioned on: names in ``CONDITIONS`` of ``runtime/conditioning``.
        defaults: by task (``text``, ``image``, ``inpaint``) and whether a ControlNet is used.
        distilled_defaults: the same for checkpoints of latent consistency models, where they differ.
        own_arguments: arguments of a request that only families of this label have.
        watermark: whether diffusers adds a watermark to its images, if the package for that is installed.
        vae_overflows: whether its VAE overflows in float16, unless the VAE's config says otherwise (``force_upcast``).
        corrects_schedulers: whether diffusers' pipelines change outdated scheduler configs of its checkpoints.
        resample: how images are resized.
        sizes: how height and width are decided. ``image``: a request without a size gets that of its image, if it has
            one, and sides that are no multiple of the VAE's factor are refused. ``rounded``: a request without a size
            gets the bundle's, and sides are rounded up.
        dilates_mask: whether the masked part grows by one latent pixel, as in the network's training.
        strength_of_inpainting: whether inpainting has the argument ``strength``.

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
        """Names of the networks that every bundle of this family has."""
        encoders = (*self.text_encoders, *([self.image_encoder] if self.image_encoder else []))
        return ("unet", self.autoencoder, *encoders, *(stage.network for stage in self.stages))

    def size_multiple(self, factor: int, levels: int) -> int:
        """Return the number of pixels that heights and widths must be a multiple of.

        Args:
            factor: the VAE's: pixels along a side for one latent pixel.
            levels: number of the UNet's resolutions.

        """
        return factor * 2 ** (levels - 1) if self.sizes == "rounded" else factor

    def rounds_to(self, factor: int) -> int:
        """Return the number of pixels that text-to-image rounds heights and widths up to a multiple of.

        Args:
            factor: the VAE's: pixels along a side for one latent pixel.

        """
        return factor**2 if self.sizes == "rounded" else factor

    def defaults_for(self, pipeline_class: str, task: str, *, controlled: bool) -> Defaults:
        """Return the defaults of a task.

        Args:
            pipeline_class: ``_class_name`` of the checkpoint's ``model_index.json``; LCM's pipelines have their own.
            task: ``text``, ``image`` or ``inpaint``.
            controlled: whether a ControlNet is used.

        """
        distilled = self.distilled_defaults if pipeline_class.startswith("LatentConsistencyModel") else {}
        return distilled.get((task, controlled)) or self.defaults[task, controlled]
