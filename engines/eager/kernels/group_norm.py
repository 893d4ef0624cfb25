"""Group norm (Wu and He, 2018, arXiv:1803.08494) over channels-last tensors, with the SiLU behind it.

Three kernels: mean and sum of squared deviations of every channel over a stretch of pixels; those of a group, put
together exactly (Chan, Golub and LeVeque, 1983) from its channels' and stretches'; and the affine map. The tensor is
read twice and written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...nets.layers import GroupNorm
from .launch import LAUNCH

__all__ = ["FusedGroupNorm", "group_norm"]

_TILE = 8192
"""Elements that a program holds at a time."""
_PROGRAMS = 512
"""About how many programs share the first pass: a few for each multiprocessor."""


@triton.jit
def _moments(x, means, deviations, pixels, channels, stretch, P: tl.constexpr, C: tl.constexpr):
    """Mean and sum of squared deviations of each channel over ``stretch`` pixels: [N, stretches, channels] each."""
    sample, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    channel = tl.arange(0, C)
    inside = channel < channels
    mean = tl.zeros((C,), tl.float32)
    deviation = tl.zeros((C,), tl.float32)
    count = 0.0
    start = part * stretch
    end = tl.minimum(start + stretch, pixels)
    for first in range(start, end, P):
        pixel = first + tl.arange(0, P)
        mask = (pixel < end)[:, None] & inside[None, :]
        more = tl.minimum(end - first, P).to(tl.float32)
        values = tl.load(x + (sample * pixels + pixel[:, None]) * channels + channel[None, :], mask, 0.0).to(tl.float32)
        tile_mean = tl.sum(values, 0) / more
        centred = tl.where(mask, values - tile_mean[None, :], 0.0)
        delta = tile_mean - mean
        total = count + more
        mean += delta * (more / total)
        deviation += tl.sum(centred * centred, 0) + delta * delta * (count * more / total)
        count = total
    place = (sample * tl.num_programs(0) + part) * channels + channel
    tl.store(means + place, mean, inside)
    tl.store(deviations + place, deviation, inside)


@triton.jit
def _groups(
    means,
    deviations,
    centre,
    scale,
    pixels,
    channels,
    stretch,
    stretches,
    width,
    eps,
    S: tl.constexpr,
    W: tl.constexpr,
):
    """Mean and one over the standard deviation of each group: [N, groups] each."""
    sample, group = tl.program_id(1).to(tl.int64), tl.program_id(0)
    channel = tl.arange(0, W)
    base = sample * stretches * channels + group * width
    mean = 0.0
    for first in range(0, stretches, S):
        part = first + tl.arange(0, S)
        mask = (part < stretches)[:, None] & (channel < width)[None, :]
        count = tl.minimum(pixels - part * stretch, stretch).to(tl.float32)
        values = tl.load(means + base + part[:, None] * channels + channel[None, :], mask, 0.0)
        mean += tl.sum(tl.where(mask, values * count[:, None], 0.0))
    mean = mean / (pixels * width)
    total = 0.0
    for first in range(0, stretches, S):
        part = first + tl.arange(0, S)
        mask = (part < stretches)[:, None] & (channel < width)[None, :]
        count = tl.minimum(pixels - part * stretch, stretch).to(tl.float32)
        place = base + part[:, None] * channels + channel[None, :]
        delta = tl.load(means + place, mask, 0.0) - mean
        total += tl.sum(tl.where(mask, tl.load(deviations + place, mask, 0.0) + delta * delta * count[:, None], 0.0))
    tl.store(centre + sample * tl.num_programs(0) + group, mean)
    tl.store(scale + sample * tl.num_programs(0) + group, tl.rsqrt(total / (pixels * width) + eps))


@triton.jit
def _apply(
    x,
    out,
    centre,
    scale,
    weight,
    bias,
    pixels,
    channels,
    groups,
    width,
    SILU: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    channel = tl.arange(0, C)
    inside = channel < channels
    group = sample * groups + channel // width
    factor = tl.load(scale + group, inside, 0.0) * tl.load(weight + channel, inside, 0.0).to(tl.float32)
    shift = tl.load(bias + channel, inside, 0.0).to(tl.float32) - tl.load(centre + group, inside, 0.0) * factor
    mask = (pixel < pixels)[:, None] & inside[None, :]
    place = (sample * pixels + pixel[:, None]) * channels + channel[None, :]
    y = tl.load(x + place, mask, 0.0).to(tl.float32) * factor[None, :] + shift[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + place, y.to(out.dtype.element_ty), mask)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool) -> Tensor:
    """Normalise, in float32, and apply SiLU if requested.

    Args:
        x: [N, C, h, w]; made channels-last if it is not.
        groups: G, which divides C.
        weight: [C].
        bias: [C].
        eps: added to the variance.
        silu: whether SiLU follows.

    Returns:
        As x, channels-last.

    """
    x = x.contiguous(memory_format=torch.channels_last)
    samples, channels, height, width = x.shape
    pixels, block = height * width, 1 << (channels - 1).bit_length()
    rows = max(1, _TILE // block)
    stretch = rows * max(1, -(-pixels * samples // (rows * _PROGRAMS)))
    stretches = -(-pixels // stretch)
    moments = torch.empty((2, samples, stretches, channels), device=x.device, dtype=torch.float32)
    stats = torch.empty((2, samples, groups), device=x.device, dtype=torch.float32)
    out = torch.empty_like(x)
    of_group = channels // groups
    _moments[(stretches, samples)](x, moments[0], moments[1], pixels, channels, stretch, P=rows, C=block, **LAUNCH)
    _groups[(groups, samples)](
        moments[0],
        moments[1],
        stats[0],
        stats[1],
        pixels,
        channels,
        stretch,
        stretches,
        of_group,
        eps,
        S=32,
        W=1 << (of_group - 1).bit_length(),
        **LAUNCH,
    )
    _apply[(-(-pixels // rows), samples)](
        x,
        out,
        stats[0],
        stats[1],
        weight,
        bias,
        pixels,
        channels,
        groups,
        of_group,
        SILU=silu,
        P=rows,
        C=block,
        **LAUNCH,
    )
    return out


class FusedGroupNorm(GroupNorm):
    """A group norm in these kernels."""

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """See the base class."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps, silu=silu)
