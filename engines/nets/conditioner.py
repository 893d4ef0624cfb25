"""What depends on the request and not on the step: computed once, by the conditioner.

Keys and values of every cross-attention layer, the embedding of pooled text and sizes, and the embedding of a
distilled model's guidance.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import timestep_sinusoid
from .unet import DownPath

__all__ = ["Conditioner", "unpack_key_values", "widths"]


def widths(unet: DownPath) -> list[int]:
    """Distinct widths of the cross-attention layers, in the order in which they first come."""
    return list(dict.fromkeys(layer.to_q.out_features for layer in unet.cross_attentions()))


def unpack_key_values(unet: DownPath, packed: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Undo the packing: one tensor [R, L, 2, T, width] per width -> one pair [R, T, width] per layer."""
    layers = {width: iter(tensor.unbind(1)) for width, tensor in zip(widths(unet), packed, strict=True)}
    pairs = []
    for attention in unet.cross_attentions():
        key, value = next(layers[attention.to_q.out_features]).unbind(1)
        pairs.append((key, value))
    return pairs


def guidance_sinusoid(guidance: Tensor, width: int) -> Tensor:
    """Embedding of the guidance weight w = scale - 1 of distilled models (arXiv:2310.04378), [R] -> [R, width]."""
    return timestep_sinusoid(1000.0 * (guidance - 1.0), width, flip_sin_to_cos=False, freq_shift=1)


class Conditioner(nn.Module):
    """The request's part of a UNet or ControlNet.

    Args:
        unet: the network whose weights it uses; nothing of its own.

    """

    def __init__(self, unet: DownPath) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        hidden: Tensor,
        pooled: Tensor | None = None,
        time_ids: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Prepare R rows.

        Args:
            hidden: text, float32 [R, T, context].
            pooled: pooled text, float32 [R, P] (SDXL).
            time_ids: sizes and crops, float32 [R, n] (SDXL).
            guidance: guidance scale, float32 [R] (distilled models).

        Returns:
            Packed keys and values [R, L, 2, T, width], one tensor per distinct width; then ``embedding`` [R, E]
            and ``offset`` [R, base channels] where the family has them.

        """
        unet = self.unet
        dtype = unet.conv_in.weight.dtype
        text = hidden.to(dtype)
        packed: dict[int, list[Tensor]] = {width: [] for width in widths(unet)}
        for layer in unet.cross_attentions():
            packed[layer.to_q.out_features] += [layer.to_k(text), layer.to_v(text)]
        outputs = [torch.stack(layers, 1).unflatten(1, (-1, 2)) for layers in packed.values()]
        if time_ids is not None:
            assert pooled is not None
            sizes = timestep_sinusoid(
                time_ids.flatten(),
                unet.config.time_id_width,
                flip_sin_to_cos=unet.config.flip_sin_to_cos,
                freq_shift=unet.config.freq_shift,
            )
            sizes = sizes.unflatten(0, (-1, unet.config.time_ids)).flatten(1)
            outputs.append(unet.add_embedding(torch.cat([pooled.to(dtype), sizes.to(dtype)], dim=-1)))
        if guidance is not None:
            assert unet.time_embedding.cond_proj is not None and unet.config.guidance_width is not None
            sinusoid = guidance_sinusoid(guidance, unet.config.guidance_width).to(dtype)
            outputs.append(unet.time_embedding.cond_proj(sinusoid))
        return tuple(outputs)
