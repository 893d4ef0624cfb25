"""The components of a bundle: which there are, and the shapes of each, derived from the checkpoint's configs.

Axes: S samples, R rows, B texts, T tokens of a row's text, E added embeddings, h and w the size in latents. A
tensor of samples or rows has that axis first. An output ``next_X`` becomes the input ``X``: of the next evaluation
(``state``), or of the next component in the same evaluation (ControlNets add to ``residual_i``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .nets.config import UNetConfig
from .nets.image_encoder_config import ImageEncoderConfig
from .nets.movq_config import MoVQConfig
from .nets.prior_config import PriorConfig
from .nets.safety_checker_config import CONCEPTS, SPECIAL_CONCEPTS, SafetyCheckerConfig
from .nets.text_config import TextEncoderConfig
from .nets.vae_config import VAEConfig
from .spec import AxisRange, Changes, ComponentSpec, Dim, TensorSpec

__all__ = [
    "STATE_SLOTS",
    "UPDATE_TERMS",
    "Part",
    "conditioner_spec",
    "controlnet_spec",
    "denoiser_spec",
    "hint_latents_spec",
    "hint_spec",
    "image_encoder_spec",
    "movq_decoder_spec",
    "movq_encoder_spec",
    "prior_conditioner_spec",
    "prior_decoder_spec",
    "prior_spec",
    "safety_checker_spec",
    "text_encoder_spec",
    "vae_decoder_spec",
    "vae_encoder_spec",
]

STATE_SLOTS = 5
"""Slots of the solver's state: the latent and four memories, as PLMS and UniPC of order 3 need."""

UPDATE_TERMS = STATE_SLOTS + 3
"""What a new state is a sum of: the state, the network's output, the clipped x0 and fresh noise."""

Axes = Mapping[str, AxisRange]

_Config = TypeVar("_Config")


@dataclass(frozen=True, kw_only=True)
class Part(Generic[_Config]):
    """What the shapes of a component follow from.

    Attributes:
        name: of the component.
        config: of its network.
        dtype: of the tensors that components pass to each other.
        axes: ranges of all axes.
        controlled: whether the bundle holds ControlNets.

    """

    name: str
    config: _Config
    dtype: str
    axes: Axes
    controlled: bool = False


def _spec(
    part: Part[Any], inputs: list[TensorSpec], outputs: list[TensorSpec], axes: Axes | None = None
) -> ComponentSpec:
    """Make a spec of those axes that its inputs have."""
    axes = part.axes if axes is None else axes
    text = " ".join(str(dim) for tensor in inputs for dim in tensor.shape)
    names = set(text.replace("*", " ").replace("/", " ").split())
    used = {axis: allowed for axis, allowed in axes.items() if axis in names}
    return ComponentSpec(name=part.name, inputs=tuple(inputs), outputs=tuple(outputs), axes=used)


def _f32(name: str, *shape: Dim, changes: Changes = "request") -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, changes=changes)


def _i64(name: str, *shape: Dim) -> TensorSpec:
    return TensorSpec(name=name, dtype="int64", shape=shape)


def text_encoder_spec(part: Part[TextEncoderConfig]) -> ComponentSpec:
    """``text_encoder`` and ``text_encoder_2``."""
    config = part.config
    inputs = [
        _i64("input_ids", "B", config.tokens),
        _i64("attention_mask", "B", config.tokens),
        _i64("layer", 1),
        _f32("extra_embeddings", "E", config.width),
    ]
    outputs = [
        _f32("hidden", "B", config.tokens, config.width),
        _f32("pooled", "B", config.projection or config.width),
    ]
    return _spec(part, inputs, outputs)


def prepared(config: UNetConfig, dtype: str) -> list[TensorSpec]:
    """Outputs of the conditioner, which are inputs of the denoiser, or of a ControlNet."""
    tokens: Dim = config.image_tokens or "T"
    tensors = [
        TensorSpec(name=f"key_values_{width}", dtype=dtype, shape=("R", layers, 2, tokens, width))
        for width, layers in config.cross_layers(up=not config.hint_channels).items()
    ]
    if config.time_ids or config.image:
        tensors.append(TensorSpec(name="embedding", dtype=dtype, shape=("R", config.embedding)))
    if config.guidance_width:
        tensors.append(TensorSpec(name="offset", dtype=dtype, shape=("R", config.down[0].channels)))
    return tensors


def conditioner_spec(part: Part[UNetConfig]) -> ComponentSpec:
    """``conditioner``, and the one of each ControlNet."""
    config = part.config
    inputs = [_f32("image_embeds", "R", config.image) if config.image else _f32("hidden", "R", "T", config.context)]
    if config.time_ids:
        inputs += [_f32("pooled", "R", config.pooled), _f32("time_ids", "R", config.time_ids)]
    if config.guidance_width:
        inputs.append(_f32("guidance", "R"))
    return _spec(part, inputs, prepared(config, part.dtype))


def _solver_inputs(channels: int, *size: Dim, rescale: bool) -> list[TensorSpec]:
    """What the solver's part of a step is given, beside the state; ``rescale`` says whether guidance is rescaled."""
    return [
        _f32("noise", "S", channels, *size, changes="evaluation"),
        _f32("mix", "S", "R", changes="evaluation"),
        *([_f32("rescale", "S", "R", changes="evaluation")] if rescale else []),
        _f32("predict", "S", 2, changes="evaluation"),
        _f32("clip", "S", changes="evaluation"),
        _f32("update", "S", STATE_SLOTS, UPDATE_TERMS, changes="evaluation"),
    ]


def _step_inputs(state: TensorSpec) -> list[TensorSpec]:
    """Inputs that a denoiser and the ControlNets beside it share."""
    return [
        state,
        _i64("row_sample", "R"),
        _f32("timestep", "R", changes="evaluation"),
        _f32("input_scale", "S", changes="evaluation"),
    ]


def _residuals(config: UNetConfig, prefix: str = "") -> list[TensorSpec]:
    def scaled(axis: str, scale: int) -> str:
        return axis if scale == 1 else f"{axis}/{scale}"

    return [
        _f32(f"{prefix}residual_{i}", "R", channels, scaled("h", scale), scaled("w", scale), changes="evaluation")
        for i, (channels, scale) in enumerate(config.maps())
    ]


def denoiser_spec(part: Part[UNetConfig]) -> ComponentSpec:
    """``denoiser``; with ControlNets in the bundle it takes their residuals too."""
    config = part.config
    c = config.latent
    state = _f32("state", "S", STATE_SLOTS, c, "h", "w", changes="state")
    inputs = [
        *_step_inputs(state),
        *_solver_inputs(c, "h", "w", rescale=True),
        *prepared(config, part.dtype),
    ]
    if config.in_channels > c:
        inputs.append(_f32("extra", "S", config.in_channels - c, "h", "w"))
    if config.blends:
        inputs += [_f32("mask", "S", 1, "h", "w"), _f32("known", "S", 2, c, "h", "w")]
        inputs.append(_f32("blend", "S", 2, changes="evaluation"))
    if part.controlled:
        inputs += _residuals(config)
    return _spec(part, inputs, [_f32("next_state", *state.shape)])


def hint_spec(part: Part[UNetConfig]) -> ComponentSpec:
    """The component that embeds a ControlNet's image."""
    config = part.config
    factor = 2 ** (len(config.hint_channels) - 1)
    inputs = [_f32("image", "S", f"{factor}*h", f"{factor}*w", config.hint_in)]
    return _spec(part, inputs, [_f32("hint", "S", config.down[0].channels, "h", "w")])


def controlnet_spec(part: Part[UNetConfig]) -> ComponentSpec:
    """One ControlNet's step."""
    config = part.config
    inputs = [
        *_step_inputs(_f32("state", "S", STATE_SLOTS, config.in_channels, "h", "w", changes="state")),
        _f32("hint", "S", config.down[0].channels, "h", "w"),
        _f32("scale", "R", len(config.maps()), changes="evaluation"),
        *prepared(config, part.dtype),
        *_residuals(config),
    ]
    return _spec(part, inputs, _residuals(config, "next_"))


def hint_latents_spec(part: Part[UNetConfig]) -> ComponentSpec:
    """The component that embeds a hint as more channels beside the latents."""
    config = part.config
    inputs = [_f32("image", "S", "8*h", "8*w", 3)]
    return _spec(part, inputs, [_f32("extra", "S", config.latent, "h", "w")])


def image_encoder_spec(part: Part[ImageEncoderConfig]) -> ComponentSpec:
    """``image_encoder``."""
    config = part.config
    inputs = [_f32("pixels", "B", config.size, config.size, 3)]
    return _spec(part, inputs, [_f32("image_embeds", "B", config.projection)])


def safety_checker_spec(part: Part[SafetyCheckerConfig]) -> ComponentSpec:
    """``safety_checker``: how far each concept is beyond its threshold, those of special care first."""
    size = part.config.encoder.size
    inputs = [_f32("pixels", "B", size, size, 3)]
    return _spec(part, inputs, [_f32("margins", "B", SPECIAL_CONCEPTS + CONCEPTS)])


def _prior_prepared(config: PriorConfig, dtype: str) -> list[TensorSpec]:
    """What a prior's conditioner hands to its step."""
    shape: tuple[Dim, ...] = ("R", config.layers, 2, config.prefix, config.width)
    key_values = TensorSpec(name=f"key_values_{config.width}", dtype=dtype, shape=shape)
    return [key_values, _f32("key_bias", "R", config.prefix)]


def prior_conditioner_spec(part: Part[PriorConfig]) -> ComponentSpec:
    """``prior_conditioner``: the text's part of a prior."""
    config = part.config
    inputs = [
        _f32("hidden", "R", config.tokens, config.embedding),
        _f32("pooled", "R", config.embedding),
        _f32("text_mask", "R", config.tokens),
    ]
    return _spec(part, inputs, _prior_prepared(config, part.dtype))


def prior_spec(part: Part[PriorConfig]) -> ComponentSpec:
    """``prior``: a step; an embedding is an image of one pixel."""
    config = part.config
    state = _f32("state", "S", STATE_SLOTS, config.embedding, 1, 1, changes="state")
    inputs = [
        *_step_inputs(state),
        *_solver_inputs(config.embedding, 1, 1, rescale=False),
        *_prior_prepared(config, part.dtype),
    ]
    return _spec(part, inputs, [_f32("next_state", *state.shape)])


def prior_decoder_spec(part: Part[PriorConfig]) -> ComponentSpec:
    """``prior_decoder``: what was denoised, as the embedding of an image."""
    config = part.config
    inputs = [_f32("latent", "S", config.embedding, 1, 1)]
    return _spec(part, inputs, [_f32("image_embeds", "S", config.embedding)])


def _tile_axes(axes: Axes) -> Axes:
    """Ranges of a VAE: tiles may be as small as what is left at an edge, unless the bundle has one size only."""
    return {
        axis: AxisRange(1, length.opt, length.max) if axis in "hw" and length.min < length.max else length
        for axis, length in axes.items()
    }


def _pixels(config: VAEConfig | MoVQConfig) -> TensorSpec:
    return _f32("image", "S", f"{config.factor}*h", f"{config.factor}*w", 3)


def _latent(config: VAEConfig | MoVQConfig) -> TensorSpec:
    return _f32("latent", "S", config.latent, "h", "w")


def vae_decoder_spec(part: Part[VAEConfig]) -> ComponentSpec:
    """``vae_decoder``: float pixels, the same pixels as bytes, and one number that shows overflow."""
    return _decoder_spec(part, _tile_axes(part.axes))


def movq_decoder_spec(part: Part[MoVQConfig]) -> ComponentSpec:
    """``vae_decoder`` of a MoVQ, which is not run in tiles."""
    return _decoder_spec(part, part.axes)


def _decoder_spec(part: Part[VAEConfig] | Part[MoVQConfig], axes: Axes) -> ComponentSpec:
    pixels = _pixels(part.config)
    picture = TensorSpec(name="picture", dtype="uint8", shape=pixels.shape)
    return _spec(part, [_latent(part.config)], [pixels, picture, _f32("magnitude", "S")], axes)


def vae_encoder_spec(part: Part[VAEConfig]) -> ComponentSpec:
    """``vae_encoder``: latents, and the mean and log-variance that they are sampled from."""
    latent = _latent(part.config)
    moments = _f32("moments", "S", 2 * part.config.latent, "h", "w")
    inputs = [_pixels(part.config), _f32("noise", *latent.shape)]
    return _spec(part, inputs, [latent, moments], _tile_axes(part.axes))


def movq_encoder_spec(part: Part[MoVQConfig]) -> ComponentSpec:
    """``vae_encoder`` of a MoVQ, in which nothing is random."""
    return _spec(part, [_pixels(part.config)], [_latent(part.config)])
