"""``value * gelu(gate)`` in one pass over a projection's output."""

import triton
import triton.language as tl
from torch import Tensor

from ...nets.attention import GEGLU
from .launch import LAUNCH

__all__ = ["FusedGEGLU", "geglu"]

_BLOCK = 1024


@triton.jit
def _geglu(projected, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(projected + row * 2 * width + column, inside).to(tl.float32)
    gate = tl.load(projected + row * 2 * width + width + column, inside).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * width + column, (value * gelu).to(out.dtype.element_ty), inside)


def geglu(projected: Tensor) -> Tensor:
    """[..., 2 * width] -> [..., width]: the first half times the GELU of the second one, computed in float32."""
    projected = projected.contiguous()
    width = projected.shape[-1] // 2
    out = projected.new_empty(*projected.shape[:-1], width)
    rows = out.numel() // width
    _geglu[(rows, -(-width // _BLOCK))](projected, out, width, BLOCK=_BLOCK, **LAUNCH)
    return out


class FusedGEGLU(GEGLU):
    """The gated linear unit, its second part in one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        return geglu(self.proj(x))
