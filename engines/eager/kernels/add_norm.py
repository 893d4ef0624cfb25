"""A residual's sum and the layer norm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450) behind it, in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from ...nets.attention import KeyValues, TransformerBlock
from .launch import LAUNCH

__all__ = ["FusedTransformerBlock", "add_norm"]


@triton.jit
def _add_norm(x, more, added, out, weight, bias, width, eps, W: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, W)
    inside = column < width
    total = tl.load(x + row + column, inside, 0.0).to(tl.float32) + tl.load(more + row + column, inside, 0.0)
    rounded = total.to(added.dtype.element_ty)
    tl.store(added + row + column, rounded, inside)
    values = rounded.to(tl.float32)
    mean = tl.sum(values, 0) / width
    centred = tl.where(inside, values - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    factor = tl.load(weight + column, inside, 0.0).to(tl.float32)
    y = centred * scale * factor + tl.load(bias + column, inside, 0.0).to(tl.float32)
    tl.store(out + row + column, y.to(out.dtype.element_ty), inside)


def add_norm(x: Tensor, more: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return ``x + more``, rounded to its type, and its layer norm, computed in float32; all [..., width]."""
    x, more = x.contiguous(), more.contiguous()
    width = x.shape[-1]
    added, out = torch.empty_like(x), torch.empty_like(x)
    block = 1 << (width - 1).bit_length()
    _add_norm[(x.numel() // width,)](x, more, added, out, norm.weight, norm.bias, width, norm.eps, W=block, **LAUNCH)
    return added, out


class FusedTransformerBlock(TransformerBlock):
    """A transformer block whose sums and norms share a kernel."""

    def forward(self, x: Tensor, key_values: KeyValues, row_sample: Tensor | None = None) -> Tensor:
        """See the base class."""
        if row_sample is not None:
            return TransformerBlock.forward(self, x, key_values, row_sample)
        x, y = add_norm(x, self.attn1(self.norm1(x)), self.norm2)
        x, y = add_norm(x, self.attn2(y, next(key_values)), self.norm3)
        return torch.add(x, self.ff(y))
