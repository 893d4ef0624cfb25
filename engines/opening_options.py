"""Options of opening engines, beside the engine and its precision."""

import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from .errors import UsageError
from .scalars import whole_number

__all__ = ["CudaGraph", "OpeningOptions"]

CudaGraph = Literal["step", "loop", "off"]

_THREADS_MOST = 4096
_BYTES_MOST = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class OpeningOptions:
    """Options of engines; None leaves the choice to the engine.

    Attributes:
        threads: for one operator, of engines on a CPU.
        device: where to run: ``cpu``, ``cuda`` or ``cuda:N``; an engine that cannot is skipped.
        cuda_graph: of TensorRT, and of torch on a GPU: ``step`` replays the launches of a step as one, ``loop`` those
            of all steps, ``off`` none.
        weight_streaming_budget: of TensorRT: how much of the weights stays on the device, of a plan that was built to
            stream them, in bytes (int), as a share (float) or ``auto``.
        compile: of torch: compile what runs at every step with ``torch.compile``, once for each set of shapes.
        memory_limit: of ONNX Runtime on a GPU: most bytes that a component may take.

    Raises:
        UsageError: ``device`` or ``cuda_graph`` is none of those, or another value is of a wrong type or out of range.

    """

    threads: int | None = None
    device: str | None = None
    cuda_graph: str | None = None
    weight_streaming_budget: int | float | str | None = None
    compile: bool | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        """Check values, also those that the engine will not use."""
        if self.threads is not None:
            whole_number("threads", self.threads, least=1, most=_THREADS_MOST)
        if self.memory_limit is not None:
            whole_number("memory_limit", self.memory_limit, least=1, most=_BYTES_MOST)
        if self.device is not None and re.fullmatch(r"cpu|cuda(:\d+)?", str(self.device)) is None:
            raise UsageError(f"device={str(self.device)!r} is none of cpu, cuda and cuda:N")
        if self.cuda_graph is not None and self.cuda_graph not in get_args(CudaGraph):
            raise UsageError(f"cuda_graph={self.cuda_graph!r} is none of {', '.join(get_args(CudaGraph))}")
        if self.compile is not None and not isinstance(self.compile, bool):
            raise UsageError(f"compile={self.compile!r} must be True, False or None")

    @property
    def set_options(self) -> dict[str, object]:
        """Those that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}
