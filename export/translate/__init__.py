"""``torch.export`` program -> ONNX graph, for the operators that our networks use.

torch's own exporter takes several times as long, wants the weights while it optimises, and wraps every shape in a
dozen nodes. The networks are ours, so the operators are few: each is one function in :mod:`.operators`.
"""

from .program import Translated, graph_from_program, remove_unused

__all__ = ["Translated", "graph_from_program", "remove_unused"]
