"""What a model family is, as data: everything that differs between families and is no shape of a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Defaults", "Family", "TextReading"]


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """How a family makes embeddings of text.

    Attributes:
        sources: which text each encoder reads; ``prompt_2`` is the prompt where it is not given.
        skipped_layers: how many layers before the last one the embeddings are usually taken.
        pooled: whether the UNet also takes pooled embeddings.
        final_norm: whether the encoder's last norm is applied to the embeddings.

    """

    sources: tuple[str, ...]
    skipped_layers: int
    pooled: bool
    final_norm: bool


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where a request says nothing, as diffusers' pipelines have it in their signatures (0.42)."""

    guidance_scale: float
    strength: float | None = None
    controlnet_conditioning_scale: float = 1.0
    num_inference_steps: int = 50


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Attributes:
        name: in manifests.
        label: what people call it, and what its relatives share.
        text_encoders: names of its text encoders, in order.
        text: how they are read.
        conditions: what its samples are conditioned on, by the names of the runtime's conditions.
        defaults: by task (``text``, ``image``, ``inpaint``) and whether a ControlNet takes part.
        distilled_defaults: the same for checkpoints of latent consistency models, where they differ.
        own_arguments: arguments of a request that no other family has, but its relatives of the same label.
        watermark: whether diffusers marks its images where the package for that is installed.
        vae_overflows: whether its VAE overflows in float16, unless its config says that it does not.
        corrects_schedulers: whether diffusers' pipelines change scheduler configs that are out of date.

    """

    name: str
    label: str
    text_encoders: tuple[str, ...]
    text: TextReading
    conditions: tuple[str, ...] = ("text", "inpainting", "controlnets")
    defaults: Mapping[tuple[str, bool], Defaults]
    distilled_defaults: Mapping[tuple[str, bool], Defaults] = field(default_factory=dict)
    own_arguments: tuple[str, ...] = ()
    watermark: bool = False
    vae_overflows: bool = False
    corrects_schedulers: bool = False

    def defaults_for(self, pipeline_class: str, task: str, *, controlled: bool) -> Defaults:
        """Return the defaults of a task.

        Args:
            pipeline_class: ``_class_name`` of the checkpoint's ``model_index.json``; LCM's pipelines have their own.
            task: ``text``, ``image`` or ``inpaint``.
            controlled: whether a ControlNet takes part.

        """
        distilled = self.distilled_defaults if pipeline_class.startswith("LatentConsistencyModel") else {}
        return distilled.get((task, controlled)) or self.defaults[task, controlled]
