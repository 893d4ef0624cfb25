"""The conditioner computes once for a request what does not change from step to step.

These are the keys and values of every cross-attention layer, the embedding of pooled text and sizes, and the embedding
of a distilled model's guidance scale.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .layers import timestep_sinusoid
from .unet import DownPath

__all__ = ["Conditioner", "packed_key_values", "unpack_key_values"]


class _Attends(Protocol):
    """A network whose attention layers take keys and values as inputs; each has ``to_q``."""

    def cross_attentions(self) -> Iterator[nn.Module]: ...


def _widths(unet: _Attends) -> list[int]:
    """Width of each layer that takes keys and values, in the order in which the network runs them."""
    return [int(layer.get_submodule("to_q").get_parameter("weight").shape[0]) for layer in unet.cross_attentions()]


def packed_key_values(unet: _Attends, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Pack one pair [R, T, width] per layer: one tensor [R, L, 2, T, width] per distinct width."""
    packed: dict[int, list[Tensor]] = {}
    for width, pair in zip(_widths(unet), pairs, strict=True):
        packed.setdefault(width, []).extend(pair)
    return [torch.stack(layers, 1).unflatten(1, (-1, 2)) for layers in packed.values()]


def unpack_key_values(unet: _Attends, packed: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Undo the packing: one tensor [R, L, 2, T, width] per width -> one pair [R, T, width] per layer."""
    widths = _widths(unet)
    layers = {width: iter(tensor.unbind(1)) for width, tensor in zip(dict.fromkeys(widths), packed, strict=True)}
    pairs = []
    for width in widths:
        key, value = next(layers[width]).unbind(1)
        pairs.append((key, value))
    return pairs


def guidance_sinusoid(guidance: Tensor, width: int) -> Tensor:
    """Embedding of the guidance weight w = scale - 1 of distilled models (arXiv:2310.04378), [R] -> [R, width]."""
    return timestep_sinusoid(1000.0 * (guidance - 1.0), width, flip_sin_to_cos=False, freq_shift=1)


class Conditioner(nn.Module):
    """The part of a UNet or ControlNet that does not depend on the latent or the timestep.

    Args:
        unet: the network, whose weights it uses; it has none of its own.

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
            Packed keys and values [R, L, 2, T, width], one tensor for all L layers of a width. Then ``embedding``
            [R, E], which is added to the timestep's, if the UNet takes sizes; and ``offset`` [R, base channels], which
            is added to the timestep's sinusoid, if it takes the guidance scale.

        """
        unet = self.unet
        dtype = unet.conv_in.weight.dtype
        text = hidden.to(dtype)
        outputs = packed_key_values(unet, [(layer.to_k(text), layer.to_v(text)) for layer in unet.cross_attentions()])
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
