"""The result of a comparison, as plain data."""

import msgspec

__all__ = ["Departure", "LayerDifference"]


class LayerDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How far one value is from the reference.

    Attributes:
        value: its ONNX name in the plain graph.
        node: the node that makes it.
        operator: of the node.
        shape: of the value.
        dtype: of the value, as the engine gave it.
        inputs: what the node takes: values and weights.
        error: the largest difference over the largest value of the reference; None where that is not a number.
        inputs_error: the same, of the worst of its inputs that were compared; None where none was.
        tolerance: that the error is measured against.
        note: how the node differs from what the network is traced to, or another remark; else empty.

    """

    value: str
    node: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[str, ...]
    error: float | None
    inputs_error: float | None
    tolerance: float
    note: str = ""

    @property
    def departs(self) -> bool:
        """Whether it is over tolerance."""
        return self.error is None or self.error > self.tolerance


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one component.

    Attributes:
        component: its name.
        engine: the engine that ran it.
        device: where, as the engine reports it.
        precision: what the engine computes in.
        against: the reference, which computes in float32.
        graph: the plain graph, which layers are named after; relative to the bundle.
        ran: what the engine ran, where that is not the plain graph as it is.
        axes: the sizes.
        tolerance: the largest difference of a layer over its largest value.
        reason: why that much.
        outputs: error of each output of the engine as it is run for images, nothing marked.
        layers: how many the plain graph has.
        compared: how many were compared: none are after the chunk in which the first departs.
        unseen: how many of those before were not, as the engine's own graph does not compute them.
        first: the first layers over tolerance.
        over: how many of those compared are over tolerance.
        worst: the layer with the largest error, where none is over tolerance.
        notes: other remarks.

    """

    component: str
    engine: str
    device: str
    precision: str
    against: str
    graph: str
    ran: str
    axes: dict[str, int]
    tolerance: float
    reason: str
    outputs: dict[str, float | None]
    layers: int
    compared: int
    unseen: int
    first: tuple[LayerDifference, ...]
    over: int
    worst: LayerDifference | None
    notes: tuple[str, ...]

    @property
    def departs(self) -> bool:
        """Whether a layer or an output is over tolerance."""
        return bool(self.first) or any(error is None or error > self.tolerance for error in self.outputs.values())
