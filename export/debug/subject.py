"""The subject of a comparison: one component, on one engine, at one set of inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from ...engines.bundle.bundle import Bundle
from ...engines.bundle.manifest import Graph
from ...engines.engine import Array
from ...engines.spec import ComponentSpec
from ..trace import Traced
from .torch_runner import trace_of

__all__ = ["Subject"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A component to compare.

    Attributes:
        bundle: where it is.
        component: its name.
        engine: the engine that runs it.
        device: where, or None.
        precision: what the engine computes in.
        graph_precision: of the graph that the engine opens: OpenVINO computes in bfloat16 from a float32 graph too.
        plain: run the plain graph, without what sdengine rewrites for an engine.
        axes: the sizes.
        inputs: by name.

    """

    bundle: Bundle
    component: str
    engine: str
    device: str | None
    precision: str
    graph_precision: str
    plain: bool
    axes: Mapping[str, int]
    inputs: Mapping[str, Array]

    @property
    def graph(self) -> Graph:
        """Record of the graph."""
        return self.bundle.graph(self.component, self.graph_precision)

    @property
    def spec(self) -> ComponentSpec:
        """Inputs and outputs."""
        return self.graph.spec

    @property
    def runs(self) -> str:
        """The file that the engine opens."""
        contrib = self.graph.contrib if self.engine == "onnxruntime" and not self.plain else None
        return contrib or self.graph.file

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The plain graph, without its weights."""
        return self.load(self.graph.file)

    @cached_property
    def traced(self) -> Traced:
        """The component, traced again."""
        return trace_of(self.bundle, self.component, self.graph_precision)

    def load(self, file: str) -> onnx.ModelProto:
        """Read a graph without its weights, after comparing its hash."""
        return onnx.load(self.bundle.checked_file(file), load_external_data=False)
