"""A plan, open: the engine of TensorRT and of TensorRT for RTX."""

import mmap
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..cuda.device import Device
from ..cuda.device_memory import DeviceArray, host_buffers
from ..cuda.engine_on_device import EngineOnDevice
from ..cuda.gpu import device_number
from ..engine import Array, check_buffers
from ..errors import EngineError, UsageError
from ..memory import Buffer
from ..opening_options import CudaGraph
from .bound_context import BoundContext
from .contexts import Contexts
from .library import Library
from .messages import Messages, logger_for
from .place import plan_for
from .plan_record import PlanRecord, read_record
from .profiles import Profile
from .refit import PlanWeights
from .streaming import set_streaming_budget

__all__ = ["MOST_BOUND_CONTEXTS", "PlanEngine", "deserialised"]


MOST_BOUND_CONTEXTS = 8
"""Most sets of shapes and buffers whose contexts and graphs are held for when the same are prepared again; the one
unused for longest is dropped first. A loop over steps holds its own for as long as it lives."""


class PlanEngine(EngineOnDevice):
    """A component's plan on a GPU.

    Args:
        library: what built the plan and runs it.
        bundle: where the plan is.
        component: which one.
        precision: of the graph that the plan was built from.
        device: which GPU, as ``cuda:N``; None is the first.
        cuda_graph: ``step`` replays captured launches; ``loop`` leaves it to the loop over steps to capture all of
            them as one graph; ``off`` does not capture, nor is a plan that streams its weights ever captured.
        weight_streaming_budget: how much of the weights stays on the device, of a plan that was built to stream them;
            see :func:`~.streaming.set_streaming_budget`. None leaves it to the library.

    Attributes:
        notes: what the user should know about how it was opened.

    Raises:
        UsageError: an unknown option.
        EngineUnavailableError: library or driver are missing.
        EngineError: the bundle holds no plan for this library and GPU, or the plan cannot be opened.
        BundleError: the plan was changed.

    """

    def __init__(
        self,
        library: Library,
        bundle: Bundle,
        component: str,
        *,
        precision: str = "fp16",
        device: str | None = None,
        cuda_graph: CudaGraph = "step",
        weight_streaming_budget: int | float | str | None = None,
    ) -> None:
        self.name = library.engine
        self.precision = precision
        self.spec = bundle.graph(component, precision).spec
        self._cuda_graph = cuda_graph
        self._messages = Messages()
        self._bound: OrderedDict[tuple[object, ...], BoundContext] = OrderedDict()
        self._alive: weakref.WeakSet[BoundContext] = weakref.WeakSet()
        self._module = library.load()
        with self._opening(device_number(device)) as shared:
            plan = plan_for(library, bundle, component, precision, shared.gpu, str(self._module.__version__))
            record = read_record(bundle, plan)
            self._profiles = record.profiles
            self._engine = self._deserialised(shared, bundle, plan, record)
            self._finish_opening(shared, bundle, plan, record, weight_streaming_budget)

    def _deserialised(self, device: Device, bundle: Bundle, plan: str, record: PlanRecord) -> Any:
        """Open the plan, which is native code: only after its hash has been compared."""
        file = bundle.checked_file(plan)
        with device.held():
            self._runtime = self._module.Runtime(logger_for(self._module, self._messages))
            if record.source.options.version_compatible:
                # Such a plan contains host code of the release that built it.
                self._runtime.engine_host_code_allowed = True
            engine = deserialised(self._runtime, file)
        if engine is None:
            messages = "; ".join(self._messages.errors) or "no reason given"
            raise EngineError(f"{self.spec.name}: {self.name} cannot open {plan}: {messages}; build it again")
        return engine

    def _finish_opening(
        self, device: Device, bundle: Bundle, plan: str, record: PlanRecord, streaming_budget: int | float | str | None
    ) -> None:
        options = record.source.options
        # TensorRT-RTX allocates memory itself for such a plan, which a capture does not allow.
        self._streams = options.weight_streaming
        if self._streams and self._cuda_graph == "loop":
            raise UsageError(
                f"{self.spec.name}: a plan that streams its weights cannot be captured; use --cuda-graph off"
            )
        with device.held():
            if streaming_budget is not None:
                set_streaming_budget(self._engine, streaming_budget, component=self.spec.name)
            self._weights = PlanWeights(
                self._module, self._engine, bundle, self.spec.name, self.precision, changeable=options.refit
            )
            network = bundle.component(self.spec.name).network
            changes = self._weights.own(bundle.weights(network).changes)
            if options.strip or changes:
                self._weights.refit(int(device.stream), changes)
                device.synchronize()
            self._contexts = Contexts(
                self._module,
                self._engine,
                device.gpu,
                name=Path(plan).stem,
                sha256=bundle.checks.check(plan, bundle.file(plan)),
            )
        self.notes = self._contexts.notes

    @property
    def scratch(self) -> tuple[int, ...]:
        """Bytes of scratch memory at the largest shapes of each profile, as the open plan reports."""
        with self._open_device().held():
            size_of = self._engine.get_device_memory_size_for_profile_v2
            return tuple(int(size_of(i)) for i in range(len(self._profiles)))

    def refit(self, changes: Mapping[str, Array] | None = None) -> None:
        """Put in the bundle's weights and, over them, changed ones; of a plan that was built with ``--refit``.

        Args:
            changes: by name in the weights file. None puts back the bundle's own.

        Raises:
            UsageError: the plan cannot be refitted, or a change does not fit.
            EngineError: the library refuses a weight.

        """
        device = self._open_device()
        with device.held():
            device.synchronize()
            try:
                self._weights.refit(int(device.stream), changes)
            finally:
                device.generation += 1
                device.synchronize()

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        self._open_device()
        axes = check_buffers(self.spec, inputs, outputs)
        profile = self._profile_for(axes)
        buffers = {**inputs, **outputs}  # keeps the arrays alive: the bound context holds only addresses
        crossing = host_buffers(inputs), host_buffers(outputs)
        there = [(name, b.address) for name, b in buffers.items() if isinstance(b, DeviceArray)]
        key = (profile, *sorted(axes.items()), *sorted(there))

        def bind() -> BoundContext:
            device, capture = self._open_device(), self._cuda_graph == "step" and not self._streams
            return BoundContext(
                device, self._engine, self._contexts, self.spec, profile, axes, buffers, capture=capture
            )

        bound: BoundContext | None = None

        def launch() -> None:
            nonlocal bound
            device = self._open_device()
            with device.held():
                try:
                    if bound is None:
                        bound = self._bound_context(device, key, bind)
                    bound.run(*crossing)
                except EngineError as error:
                    if not self._messages.errors:
                        raise
                    messages = "; ".join(self._messages.errors)
                    self._messages.errors.clear()
                    raise EngineError(f"{error} ({self.name} says: {messages})") from error

        return launch

    def _profile_for(self, axes: Mapping[str, int]) -> int:
        """Choose the profile that holds all axes and is optimised nearest to them.

        Raises:
            UsageError: none does; the sizes that were built are listed.

        """
        fitting = [i for i, profile in enumerate(self._profiles) if _fits(profile, axes)]
        if not fitting:
            built = "; ".join(
                ", ".join(f"{axis} {length.min} to {length.max}" for axis, length in profile.items())
                for profile in self._profiles
            )
            sizes = ", ".join(f"{axis} {length}" for axis, length in axes.items())
            raise UsageError(f"{self.spec.name}: no profile of the plan holds {sizes}; there are: {built}")
        return min(fitting, key=lambda i: sum(abs(self._profiles[i][a].opt - n) for a, n in axes.items()))

    def _bound_context(self, device: Device, key: tuple[object, ...], bind: Callable[[], BoundContext]) -> BoundContext:
        if key not in self._bound:
            while len(self._bound) >= MOST_BOUND_CONTEXTS:
                device.synchronize()  # it may still be running, and this may be its last reference
                self._bound.popitem(last=False)
            self._bound[key] = bind()
            self._alive.add(self._bound[key])
        self._bound.move_to_end(key)
        return self._bound[key]

    def _release(self) -> None:
        for bound in list(self._alive):
            bound.close()
        self._bound.clear()
        self._contexts.keep()
        del self._contexts, self._weights
        self._engine = self._runtime = None


def deserialised(runtime: Any, file: Path) -> Any:
    """Open a plan whose hash has been compared: it is native code. None where the library refuses it."""
    with file.open("rb") as plan, mmap.mmap(plan.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return runtime.deserialize_cuda_engine(data)  # mapped, so that its weights are not held twice


def _fits(profile: Profile, axes: Mapping[str, int]) -> bool:
    return all(profile[axis].min <= length <= profile[axis].max for axis, length in axes.items())
