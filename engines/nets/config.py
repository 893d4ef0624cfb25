"""The UNet's and the ControlNet's configuration, read from diffusers' ``config.json`` and resolved once.

Every dimension comes from the file. What the networks here do not implement is refused by name, so that no
checkpoint runs with a part of it left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["UNET_OPTIONS", "LevelConfig", "UNetConfig", "level_config", "only", "per_level", "refuse_unknown"]

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}

# Options whose other values change the network in ways that no family here uses.
UNET_OPTIONS: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default", None),
    "center_input_sample": (False, None),
    "class_embed_type": (None,),
    "conv_in_kernel": (3, None),
    "conv_out_kernel": (3, None),
    "cross_attention_norm": (None,),
    "downsample_padding": (1, None),
    "dual_cross_attention": (False, None),
    "encoder_hid_dim_type": (None,),
    "global_pool_conditions": (False, None),
    "mid_block_scale_factor": (1, 1.0, None),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
    "num_class_embeds": (None,),
    "only_cross_attention": (False, None),
    "resnet_time_scale_shift": ("default", None),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional", None),
    "timestep_post_act": (None,),
}


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One resolution of the UNet.

    Attributes:
        channels: channels of its feature maps.
        heads: attention heads.
        depths: transformer blocks behind each residual block; empty where the level has no attention.
        layers: residual blocks on the way down.

    """

    channels: int
    heads: int
    depths: tuple[int, ...]
    layers: int


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A resolved UNet or ControlNet configuration; ``down`` runs from fine to coarse, ``up`` back again.

    Attributes:
        image: width of the image embedding that conditions it, or 0.
        image_tokens: tokens that are made of that.
        image_hint: whether it sees a hint beside the latents.

    """

    in_channels: int
    out_channels: int
    down: tuple[LevelConfig, ...]
    up: tuple[LevelConfig, ...]
    mid_depth: int | None
    context: int
    groups: int
    eps: float
    linear: bool
    upcast: bool
    flip_sin_to_cos: bool
    freq_shift: float
    time_ids: int
    time_id_width: int
    pooled: int
    guidance_width: int | None
    hint_channels: tuple[int, ...] = ()
    hint_in: int = 3
    hint_bgr: bool = False
    image: int = 0
    image_tokens: int = 0
    image_hint: bool = False

    @property
    def latent(self) -> int:
        """Channels of the latents; a UNet that an image embedding conditions returns a learned variance beside them."""
        return self.out_channels // 2 if self.image else self.out_channels

    @property
    def inpaints(self) -> bool:
        """Whether it sees a mask and the masked image beside the latents."""
        return self.in_channels > self.latent and not self.image_hint

    @property
    def blends(self) -> bool:
        """Whether what is known of an image is put back at each step; ordinary inpainting UNets see it instead."""
        return not self.inpaints or bool(self.image)

    @property
    def embedding(self) -> int:
        """Width of the time embedding."""
        return 4 * self.down[0].channels

    def cross_layers(self, *, up: bool = True) -> dict[int, int]:
        """Number of cross-attention layers per width, widths in the order in which the network meets them.

        Args:
            up: count the way up too; a ControlNet has none.

        """
        counts: dict[int, int] = {}
        middle = (self.down[-1].channels, self.mid_depth or 0)
        levels = [(level.channels, sum(level.depths)) for level in self.down]
        levels += [middle] + [(level.channels, sum(level.depths)) for level in self.up if up]
        for channels, layers in levels:
            if layers:
                counts[channels] = counts.get(channels, 0) + layers
        return counts

    def maps(self) -> list[tuple[int, int]]:
        """Channels and downscale of each map that a ControlNet adds to, the middle's last."""
        maps = [(self.down[0].channels, 1)]
        for i, level in enumerate(self.down):
            maps += [(level.channels, 2**i)] * level.layers
            if i < len(self.down) - 1:
                maps.append((level.channels, 2 ** (i + 1)))
        return [*maps, maps[-1]]

    def up_inputs(self) -> list[list[int]]:
        """Channels that each residual block on the way up takes, per level: those below, and a map's beside them."""
        maps = [channels for channels, _ in self.maps()[:-1]]
        inputs: list[list[int]] = []
        channels = self.down[-1].channels
        for level in self.up:
            inputs.append([])
            for _ in range(level.layers):
                inputs[-1].append(channels + maps.pop())
                channels = level.channels
        return inputs

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], *, pooled: int | None = None) -> "UNetConfig":
        """Resolve the contents of a ``config.json``.

        Args:
            config: the file's mapping, of a ``UNet2DConditionModel`` or a ``ControlNetModel``.
            pooled: width of the pooled text; needed by families with ``text_time`` conditions.

        Raises:
            CheckpointError: an option has a value that these networks do not implement.

        """
        refuse_unknown(config, UNET_OPTIONS, _DOWN, _UP)
        channels: Sequence[int] = config["block_out_channels"]
        levels = len(channels)
        down_types: Sequence[str] = config["down_block_types"]
        up_types: Sequence[str] = config.get("up_block_types") or [
            {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}[t] for t in reversed(down_types)
        ]
        heads = per_level(config.get("num_attention_heads") or config["attention_head_dim"], levels)
        layers = per_level(config.get("layers_per_block", 2), levels)
        depths = per_level(config.get("transformer_layers_per_block", 1), levels)
        up_depths = config.get("reverse_transformer_layers_per_block") or depths[::-1]
        text_time = config.get("addition_embed_type") == "text_time"
        time_id_width = int(config.get("addition_time_embed_dim") or 0) if text_time else 0
        time_ids = 0
        if text_time:
            if pooled is None:
                raise CheckpointError("this UNet takes pooled text, but the checkpoint has no text encoder that pools")
            time_ids = (config["projection_class_embeddings_input_dim"] - pooled) // time_id_width
        return cls(
            in_channels=config.get("in_channels", 4),
            out_channels=config.get("out_channels", 4),
            down=tuple(
                level_config(c, h, d, n, cross=_DOWN[t])
                for c, h, d, n, t in zip(channels, heads, depths, layers, down_types, strict=True)
            ),
            up=tuple(
                level_config(c, h, d, n + 1, cross=_UP[t])
                for c, h, d, n, t in zip(channels[::-1], heads[::-1], up_depths, layers[::-1], up_types, strict=True)
            ),
            mid_depth=None if config.get("mid_block_type", "") is None else _last(depths[-1]),
            context=only(config["cross_attention_dim"], "cross_attention_dim"),
            groups=config.get("norm_num_groups", 32),
            eps=config.get("norm_eps", 1e-5),
            linear=bool(config.get("use_linear_projection", False)),
            upcast=bool(config.get("upcast_attention", False)),
            flip_sin_to_cos=config.get("flip_sin_to_cos", True),
            freq_shift=config.get("freq_shift", 0),
            time_ids=time_ids,
            time_id_width=time_id_width,
            pooled=pooled or 0 if text_time else 0,
            guidance_width=config.get("time_cond_proj_dim"),
            hint_channels=tuple(config.get("conditioning_embedding_out_channels") or ()),
            hint_in=config.get("conditioning_channels", 3),
            hint_bgr=config.get("controlnet_conditioning_channel_order", "rgb") == "bgr",
        )


def level_config(channels: int, heads: int, depth: Any, layers: int, *, cross: bool) -> LevelConfig:
    """Return a level's configuration; ``cross`` says whether it has attention."""
    depths = (depth,) * layers if isinstance(depth, int) else tuple(depth)
    return LevelConfig(channels=channels, heads=heads, depths=depths if cross else (), layers=layers)


def per_level(value: Any, levels: int) -> list[Any]:
    """Return an option's value for each level."""
    return [value] * levels if isinstance(value, int) else list(value)


def _last(depth: Any) -> int:
    return depth if isinstance(depth, int) else int(depth[-1])


def only(value: Any, name: str) -> int:
    """Return the one value of an option that could be another at each level."""
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise CheckpointError(f"{name}={value!r}: levels with text of different widths are not supported")
    return int(values.pop())


def refuse_unknown(
    config: Mapping[str, Any],
    fixed: Mapping[str, tuple[object, ...]],
    down: Mapping[str, bool],
    up: Mapping[str, bool],
) -> None:
    """Raise CheckpointError where a UNet's config has an option or a block that is not implemented.

    Args:
        config: the contents of ``config.json``.
        fixed: the values that options may have; the first is diffusers' default.
        down: blocks of the way down.
        up: blocks of the way up.

    """
    for option, allowed in fixed.items():
        value = config.get(option, allowed[0])
        if isinstance(value, (list, tuple)) and len(set(value)) == 1:
            value = value[0]
        if value not in allowed:
            known = " or ".join(repr(a) for a in allowed)
            raise CheckpointError(f"the UNet's {option}={value!r} is not supported; {known} is")
    for option, known_types in (("down_block_types", down), ("up_block_types", up)):
        for block in config.get(option) or ():
            if block not in known_types:
                raise CheckpointError(
                    f"{option} holds {block!r}, which is not supported; {' and '.join(known_types)} are"
                )
