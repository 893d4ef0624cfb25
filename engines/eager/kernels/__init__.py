"""Kernels in Triton for what torch does slowly on a GPU, put in the places of modules of a network.

torch normalises groups of a channels-last tensor by way of the other layout, ten times slower than its bytes can be
read and written, and reads again what a residual's sum or a gated linear unit's half has just been written as.
"""

from typing import Any

__all__ = ["unavailable", "use_kernels"]


def unavailable() -> str | None:
    """Return why they cannot be used here, or None."""
    from importlib.util import find_spec

    return None if find_spec("triton") else "triton is not installed, so group norms run in torch's slower kernels"


def use_kernels(network: Any) -> None:
    """Let norms, gated linear units and residuals of a network on a GPU, in half precision, run in these kernels."""
    from ...nets.attention import GEGLU, TransformerBlock
    from ...nets.layers import GroupNorm
    from .add_norm import FusedTransformerBlock
    from .geglu import FusedGEGLU
    from .group_norm import FusedGroupNorm

    fused: dict[type, type] = {GroupNorm: FusedGroupNorm, GEGLU: FusedGEGLU, TransformerBlock: FusedTransformerBlock}
    for module in network.modules():
        module.__class__ = fused.get(type(module), type(module))
