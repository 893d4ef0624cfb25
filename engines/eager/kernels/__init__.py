"""Kernels in Triton for what torch does slowly on a GPU, which replace modules of a network.

torch converts a channels-last tensor to the other layout to normalise its groups, which takes ten times as long as
reading and writing its bytes. It also writes and reads a residual's sum, or a half of a gated linear unit, once more.
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
