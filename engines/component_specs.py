"""The inputs, outputs and shapes of every component, derived from the checkpoint's configs.

Axes: S samples, R rows, B texts, T tokens of a text, E embeddings of new words, h and w the height and width of
latents. The first axis of a tensor that belongs to samples or rows is S or R. An output ``next_X`` becomes the input
``X``: of the next evaluation (``state``), or of the next component in the same evaluation (ControlNets add to
``residual_i``).
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
    "ShapeSource",
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
"""Entries of the solver's state: the latent and four tensors more, which PLMS and UniPC of order 3 need."""

UPDATE_TERMS = STATE_SLOTS + 3
"""Number of terms that a new state is a weighted sum of: the state, the prediction, the clipped x0 and noise."""

Axes = Mapping[str, AxisRange]

_Config = TypeVar("_Config")


@dataclass(frozen=True, kw_only=True)
class ShapeSource(Generic[_Config]):
    """What the shapes of a component are derived from.

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
    source: ShapeSource[Any], inputs: list[TensorSpec], outputs: list[TensorSpec], axes: Axes | None = None
) -> ComponentSpec:
    """Make a spec with the ranges of those axes that its inputs have."""
    axes = source.axes if axes is None else axes
    text = " ".join(str(dim) for tensor in inputs for dim in tensor.shape)
    names = set(text.replace("*", " ").replace("/", " ").split())
    used = {axis: allowed for axis, allowed in axes.items() if axis in names}
    return ComponentSpec(name=source.name, inputs=tuple(inputs), outputs=tuple(outputs), axes=used)


def _f32(name: str, *shape: Dim, changes: Changes = "request") -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, changes=changes)


def _i64(name: str, *shape: Dim) -> TensorSpec:
    return TensorSpec(name=name, dtype="int64", shape=shape)


def text_encoder_spec(source: ShapeSource[TextEncoderConfig]) -> ComponentSpec:
    """``text_encoder`` and ``text_encoder_2``."""
    config = source.config
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
    return _spec(source, inputs, outputs)


def prepared(config: UNetConfig, dtype: str) -> list[TensorSpec]:
    """Return the outputs of the conditioner, which are inputs of the denoiser or of a ControlNet."""
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


def conditioner_spec(source: ShapeSource[UNetConfig]) -> ComponentSpec:
    """``conditioner``, and the one of each ControlNet."""
    config = source.config
    inputs = [_f32("image_embeds", "R", config.image) if config.image else _f32("hidden", "R", "T", config.context)]
    if config.time_ids:
        inputs += [_f32("pooled", "R", config.pooled), _f32("time_ids", "R", config.time_ids)]
    if config.guidance_width:
        inputs.append(_f32("guidance", "R"))
    return _spec(source, inputs, prepared(config, source.dtype))


def _solver_inputs(channels: int, *size: Dim, rescale: bool) -> list[TensorSpec]:
    """Return the inputs of the solver's part of a step; with ``rescale`` there is guidance rescale."""
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


def denoiser_spec(source: ShapeSource[UNetConfig]) -> ComponentSpec:
    """``denoiser``; with ControlNets in the bundle it takes their residuals too."""
    config = source.config
    c = config.latent
    state = _f32("state", "S", STATE_SLOTS, c, "h", "w", changes="state")
    inputs = [
        *_step_inputs(state),
        *_solver_inputs(c, "h", "w", rescale=True),
        *prepared(config, source.dtype),
    ]
    if config.in_channels > c:
        inputs.append(_f32("extra", "S", config.in_channels - c, "h", "w"))
    if config.blends:
        inputs += [_f32("mask", "S", 1, "h", "w"), _f32("known", "S", 2, c, "h", "w")]
        inputs.append(_f32("blend", "S", 2, changes="evaluation"))
    if source.controlled:
        inputs += _residuals(config)
    return _spec(source, inputs, [_f32("next_state", *state.shape)])


def hint_spec(source: ShapeSource[UNetConfig]) -> ComponentSpec:
    """The component that embeds a ControlNet's image."""
    config = source.config
    factor = 2 ** (len(config.hint_channels) - 1)
    inputs = [_f32("image", "S", f"{factor}*h", f"{factor}*w", config.hint_in)]
    return _spec(source, inputs, [_f32("hint", "S", config.down[0].channels, "h", "w")])


def controlnet_spec(source: ShapeSource[UNetConfig]) -> ComponentSpec:
    """One ControlNet's step."""
    config = source.config
    inputs = [
        *_step_inputs(_f32("state", "S", STATE_SLOTS, config.in_channels, "h", "w", changes="state")),
        _f32("hint", "S", config.down[0].channels, "h", "w"),
        _f32("scale", "R", len(config.maps()), changes="evaluation"),
        *prepared(config, source.dtype),
        *_residuals(config),
    ]
    return _spec(source, inputs, _residuals(config, "next_"))


def hint_latents_spec(source: ShapeSource[UNetConfig]) -> ComponentSpec:
    """The component that embeds a hint as more channels beside the latents."""
    config = source.config
    inputs = [_f32("image", "S", "8*h", "8*w", 3)]
    return _spec(source, inputs, [_f32("extra", "S", config.latent, "h", "w")])


def image_encoder_spec(source: ShapeSource[ImageEncoderConfig]) -> ComponentSpec:
    """``image_encoder``."""
    config = source.config
    inputs = [_f32("pixels", "B", config.size, config.size, 3)]
    return _spec(source, inputs, [_f32("image_embeds", "B", config.projection)])


def safety_checker_spec(source: ShapeSource[SafetyCheckerConfig]) -> ComponentSpec:
    """``safety_checker``: how far each concept is beyond its threshold, those of special care first."""
    size = source.config.encoder.size
    inputs = [_f32("pixels", "B", size, size, 3)]
    return _spec(source, inputs, [_f32("margins", "B", SPECIAL_CONCEPTS + CONCEPTS)])


def _prior_prepared(config: PriorConfig, dtype: str) -> list[TensorSpec]:
    """Return the outputs of a prior's conditioner, which are inputs of the prior."""
    shape: tuple[Dim, ...] = ("R", config.layers, 2, config.prefix, config.width)
    key_values = TensorSpec(name=f"key_values_{config.width}", dtype=dtype, shape=shape)
    return [key_values, _f32("key_bias", "R", config.prefix)]


def prior_conditioner_spec(source: ShapeSource[PriorConfig]) -> ComponentSpec:
    """``prior_conditioner``: keys and values of the text, computed once."""
    config = source.config
    inputs = [
        _f32("hidden", "R", config.tokens, config.embedding),
        _f32("pooled", "R", config.embedding),
        _f32("text_mask", "R", config.tokens),
    ]
    return _spec(source, inputs, _prior_prepared(config, source.dtype))


def prior_spec(source: ShapeSource[PriorConfig]) -> ComponentSpec:
    """``prior``: one step; an embedding is denoised like an image of one pixel."""
    config = source.config
    state = _f32("state", "S", STATE_SLOTS, config.embedding, 1, 1, changes="state")
    inputs = [
        *_step_inputs(state),
        *_solver_inputs(config.embedding, 1, 1, rescale=False),
        *_prior_prepared(config, source.dtype),
    ]
    return _spec(source, inputs, [_f32("next_state", *state.shape)])


def prior_decoder_spec(source: ShapeSource[PriorConfig]) -> ComponentSpec:
    """``prior_decoder``: turns what was denoised into the embedding of an image."""
    config = source.config
    inputs = [_f32("latent", "S", config.embedding, 1, 1)]
    return _spec(source, inputs, [_f32("image_embeds", "S", config.embedding)])


def _tile_axes(axes: Axes) -> Axes:
    """Return a VAE's ranges: tiles at an edge may be of any smaller size, unless the bundle has one size only."""
    return {
        axis: AxisRange(1, length.opt, length.max) if axis in "hw" and length.min < length.max else length
        for axis, length in axes.items()
    }


def _pixels(config: VAEConfig | MoVQConfig) -> TensorSpec:
    return _f32("image", "S", f"{config.factor}*h", f"{config.factor}*w", 3)


def _latent(config: VAEConfig | MoVQConfig) -> TensorSpec:
    return _f32("latent", "S", config.latent, "h", "w")


def vae_decoder_spec(source: ShapeSource[VAEConfig]) -> ComponentSpec:
    """``vae_decoder``: ``image`` of 0 to 1, the same in bytes (``picture``), and ``magnitude``, to find overflow."""
    return _decoder_spec(source, _tile_axes(source.axes))


def movq_decoder_spec(source: ShapeSource[MoVQConfig]) -> ComponentSpec:
    """``vae_decoder`` of a MoVQ, which is not run in tiles."""
    return _decoder_spec(source, source.axes)


def _decoder_spec(source: ShapeSource[VAEConfig] | ShapeSource[MoVQConfig], axes: Axes) -> ComponentSpec:
    pixels = _pixels(source.config)
    picture = TensorSpec(name="picture", dtype="uint8", shape=pixels.shape)
    return _spec(source, [_latent(source.config)], [pixels, picture, _f32("magnitude", "S")], axes)


def vae_encoder_spec(source: ShapeSource[VAEConfig]) -> ComponentSpec:
    """``vae_encoder``: latents, and the mean and log-variance that they are sampled from."""
    latent = _latent(source.config)
    moments = _f32("moments", "S", 2 * source.config.latent, "h", "w")
    inputs = [_pixels(source.config), _f32("noise", *latent.shape)]
    return _spec(source, inputs, [latent, moments], _tile_axes(source.axes))


def movq_encoder_spec(source: ShapeSource[MoVQConfig]) -> ComponentSpec:
    """``vae_encoder`` of a MoVQ, which takes no noise."""
    return _spec(source, [_pixels(source.config)], [_latent(source.config)])
