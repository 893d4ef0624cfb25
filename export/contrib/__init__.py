"""A graph in operators that ONNX Runtime contributes itself (``com.microsoft``), for its engine on CPUs.

The graphs that every engine compiles are plain ONNX. ONNX Runtime has no kernel for some of their operators and spells
those out in a dozen others, and fuses by itself only where all shapes are static. So the rewriting is done
here, once, where the structure of the networks is known; the results stay the same.
"""

import onnx_ir as ir

from ..translate import remove_unused
from .fuse_attention import fuse_attention
from .fuse_residual_norm import fuse_residual_norms
from .fuse_transposed import fuse_transposed_weights
from .replace_group_norm import spell_group_norms

__all__ = ["DOMAIN", "rewrite_for_onnxruntime"]

DOMAIN = "com.microsoft"
_REWRITES = (fuse_attention, spell_group_norms, fuse_transposed_weights, fuse_residual_norms)


def rewrite_for_onnxruntime(graph: ir.Graph) -> int:
    """Rewrite a float32 graph in place; return how many places were rewritten."""
    count = sum(rewrite(graph) for rewrite in _REWRITES)
    remove_unused(graph)
    graph.opset_imports[DOMAIN] = 1
    return count
