"""How every kernel is launched."""

from typing import Any

__all__ = ["LAUNCH"]

LAUNCH: dict[str, Any] = {"enable_fp_fusion": True}
"""Products and sums may be fused, which rounds once less; releases of Triton differ in what they do unasked."""
