"""The precisions that a bundle computes in, for ``sdengine inspect``."""

from typing import Any

from ...engines.bundle.bundle import Bundle
from ...engines.bundle.graph_file import operators_by_precision, read_graph
from ...engines.trt import read_record
from .console import table

__all__ = ["precisions_of", "precisions_table"]

_MOVES = {"Cast", "Concat", "Gather", "Reshape", "Split", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Slice"} | {
    "cast", "concatenation", "gather", "shuffle", "slice", "identity", "unsqueeze", "squeeze",
}  # fmt: skip
"""Kinds that compute nothing: graphs' operators, plans' layers."""


def precisions_of(bundle: Bundle) -> list[dict[str, Any]]:
    """Count operators of graphs and layers of plans: what -> precision -> kind -> how many."""
    entries: list[dict[str, Any]] = []
    for name, component in bundle.manifest.components.items():
        for precision, graph in component.graphs.items():
            counts = operators_by_precision(read_graph(bundle.checked_file(graph.file)))
            entries.append({"component": name, "of": f"graph {precision}", "computes_in": counts})
    for built in bundle.manifest.built:
        layers = read_record(bundle, built.file).layers
        of = f"plan {built.precision}, {built.engine} {built.target}"
        entries.append({"component": built.component, "of": of, "computes_in": layers})
    return entries


def precisions_table(bundle: Bundle) -> Any:
    """Return the table; what only moves numbers is left out."""
    shown = table("Computed in", "component", "of", "precision", "kinds")
    shown.columns[-1].overflow = "fold"
    for entry in precisions_of(bundle):
        for precision, kinds in entry["computes_in"].items():
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if kind not in _MOVES)
            shown.add_row(entry["component"], entry["of"], precision, listed or "conversions only")
    return shown
