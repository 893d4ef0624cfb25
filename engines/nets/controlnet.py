"""ControlNet (Zhang et al., 2023, arXiv:2302.05543); parameter names are those of diffusers' ``ControlNetModel``."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioner import unpack_key_values
from .config import UNetConfig
from .unet import DownPath

__all__ = ["ControlNet", "ControlNetStep", "HintEmbedder"]


class HintEmbedding(nn.Module):
    """The control image, embedded at the resolution of the latents."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = config.hint_channels
        self.conv_in = nn.Conv2d(config.hint_in, c[0], 3, padding=1)
        blocks = []
        for fine, coarse in pairwise(c):
            blocks.append(nn.Conv2d(fine, fine, 3, padding=1))
            blocks.append(nn.Conv2d(fine, coarse, 3, padding=1, stride=2))
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(c[-1], config.down[0].channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """[S, 3, H, W] -> [S, base channels, h, w]."""
        x = F.silu(self.conv_in(image))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class ControlNet(DownPath):
    """The way down of a UNet, with the hint added to its input and a 1x1 convolution behind each of its maps."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        maps = [config.down[0].channels]
        for i, level in enumerate(config.down):
            maps += [level.channels] * (level.layers + (i < len(config.down) - 1))
        self.controlnet_cond_embedding = HintEmbedding(config)
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(c, c, 1) for c in maps)
        self.controlnet_mid_block = nn.Conv2d(maps[-1], maps[-1], 1)


class HintEmbedder(nn.Module):
    """The component that embeds a control image, once per request."""

    def __init__(self, controlnet: ControlNet) -> None:
        super().__init__()
        self.controlnet = controlnet

    def forward(self, image: Tensor) -> Tensor:
        """Pixels 0 to 1, float32 [S, H, W, 3] -> float32 [S, base channels, h, w]."""
        embedding = self.controlnet.controlnet_cond_embedding
        pixels = image.permute(0, 3, 1, 2)
        if self.controlnet.config.hint_bgr:
            pixels = pixels.flip(1)
        return embedding(pixels.to(embedding.conv_in.weight.dtype)).float()


class ControlNetStep(nn.Module):
    """The component ``controlnet``: what one ControlNet adds to the maps of the UNet in one step."""

    def __init__(self, controlnet: ControlNet) -> None:
        super().__init__()
        self.controlnet = controlnet

    def forward(
        self,
        state: Tensor,
        row_sample: Tensor,
        timestep: Tensor,
        input_scale: Tensor,
        hint: Tensor,
        scale: Tensor,
        key_values: Sequence[Tensor],
        residuals: Sequence[Tensor],
        embedding: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Add this ControlNet's maps, so that several run one after another.

        Args:
            state: float32 [S, K, C, h, w], as the denoiser takes it.
            row_sample: int64 [R].
            timestep: float32 [R].
            input_scale: float32 [S].
            hint: float32 [S, base channels, h, w], from :class:`HintEmbedder`.
            scale: float32 [R, maps], the strength of each map; 0 leaves it out.
            key_values: packed keys and values of this ControlNet's own cross-attention.
            residuals: maps of the ControlNets before this one, float32.
            embedding: [R, E] or None.

        Returns:
            One float32 map per residual, the middle's last.

        """
        net = self.controlnet
        dtype = net.conv_in.weight.dtype
        x = (state[:, 0] * input_scale[:, None, None, None]).index_select(0, row_sample)
        e = net.embed_time(timestep, None if embedding is None else embedding.to(dtype), None)
        x = net.conv_in(x.to(dtype)) + hint.index_select(0, row_sample).to(dtype)
        maps, middle = net.descend(x, e, iter(unpack_key_values(net, [packed.to(dtype) for packed in key_values])))
        convs = [*net.controlnet_down_blocks, net.controlnet_mid_block]
        out = []
        for i, (conv, features, before) in enumerate(zip(convs, [*maps, middle], residuals, strict=True)):
            weight = scale[:, i][:, None, None, None]
            out.append(before + torch.where(weight == 0, torch.zeros_like(weight), weight * conv(features).float()))
        return tuple(out)
