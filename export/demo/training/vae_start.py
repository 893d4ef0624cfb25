"""Starts the autoencoder as one that already works: it shrinks the picture eightfold and enlarges it again.

Trained from random weights, so small an autoencoder stays long at the mean picture. Started here, colours pass
from the first step and only the edges have to be learned. Three channels carry the colours, three carry their
negatives, and two carry a constant and its negative:

- residual branches begin near zero, so that blocks pass their input on;
- the constants are large and set the variance that the last normalisation divides by, and all means are zero,
  which makes that normalisation linear in the colours;
- silu(x) - silu(-x) = x, so taking the difference of the two copies undoes the last activation.
"""

from typing import Any

import torch
from torch import nn

__all__ = ["start_near_identity"]

_CONSTANT = 6.0
_BRANCH = 0.05  # what random residual branches and unused channels are scaled with


@torch.no_grad()
def start_near_identity(vae: Any) -> None:
    """Rewrite the fresh weights of an ``AutoencoderKL`` (four levels, groups of one, >= 8 channels) in place."""
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            module.weight.mul_(_BRANCH)
            module.bias.zero_()
        elif name.endswith("conv_shortcut"):
            _pass(module, taps=[(0, 0)])
        elif name.endswith("downsamplers.0.conv"):
            _pass(module, taps=[(0, 0), (0, 1), (1, 0), (1, 1)])
        elif name.endswith("upsamplers.0.conv"):
            _pass(module, taps=[(1, 1)])
    for half in (vae.encoder, vae.decoder):
        _enter(half.conv_in)
        _leave(half.conv_out, half.conv_norm_out.num_channels)
    _identity(vae.quant_conv, rows=3)
    vae.quant_conv.weight[4:].zero_()
    vae.quant_conv.bias[4:].fill_(-4.0)  # log variance: the code starts almost without noise
    _identity(vae.post_quant_conv, rows=3)


def _identity(conv: nn.Conv2d, *, rows: int) -> None:
    """Make a 1x1 convolution pass its first channels on."""
    conv.weight[:rows].zero_()
    if conv.bias is not None:
        conv.bias.zero_()
    for row in range(rows):
        conv.weight[row, row, 0, 0] = 1.0


def _pass(conv: nn.Conv2d, *, taps: list[tuple[int, int]]) -> None:
    """Pass channels 0 to 7 on, each the mean of the taps of its own input channel; the others start small."""
    conv.weight.mul_(_BRANCH)
    conv.weight[:8].zero_()
    if conv.bias is not None:
        conv.bias.zero_()
    for channel in range(8):
        for row, column in taps:
            conv.weight[channel, channel, row, column] = 1.0 / len(taps)


def _enter(conv: nn.Conv2d) -> None:
    """Channels 0 to 2 the colours, 3 to 5 their negatives, 6 and 7 the constants."""
    conv.weight.mul_(_BRANCH)
    conv.weight[:8].zero_()
    if conv.bias is not None:
        conv.bias.zero_()
        conv.bias[6], conv.bias[7] = _CONSTANT, -_CONSTANT
    middle = conv.kernel_size[0] // 2
    for channel in range(3):
        conv.weight[channel, channel, middle, middle] = 1.0
        conv.weight[channel + 3, channel, middle, middle] = -1.0


def _leave(conv: nn.Conv2d, channels: int) -> None:
    """Undo the normalisation, whose deviation is that of the two constants among so many channels."""
    deviation = _CONSTANT * (2 / channels) ** 0.5
    conv.weight.mul_(0.1)
    conv.weight[:3].zero_()
    if conv.bias is not None:
        conv.bias.zero_()
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = deviation
        conv.weight[channel, channel + 3, 1, 1] = -deviation
