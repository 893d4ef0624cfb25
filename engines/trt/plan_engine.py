"""A plan, open: the engine of TensorRT and of TensorRT for RTX."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..bundle import Bundle
from ..engine import Array, check_buffers
from ..errors import EngineError, UsageError
from .bucket import Bucket
from .device import Device, device_of
from .library import Library
from .messages import Messages, logger_for
from .place import plan_for
from .profiles import Profile
from .record import read_record

__all__ = ["MOST_BUCKETS", "PlanEngine"]

MOST_BUCKETS = 4
"""Sets of shapes whose contexts, buffers and graphs are kept; the one unused for longest goes first."""


class PlanEngine:
    """A component's plan on a GPU.

    Args:
        library: what built the plan and runs it.
        bundle: where the plan is.
        component: which one.
        precision: of the graph that the plan was built from.
        threads: of no use here; accepted only as None.
        device: number of the GPU.
        cuda_graph: ``step`` replays captured launches, ``off`` does not capture.

    Raises:
        UsageError: an option that a GPU does not have.
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
        threads: int | None = None,
        device: int = 0,
        cuda_graph: Literal["step", "off"] = "step",
    ) -> None:
        if threads is not None:
            raise UsageError(f"threads={threads} is for engines on a CPU; {library.engine} has none")
        if cuda_graph not in ("step", "off"):
            raise UsageError(f"cuda_graph={cuda_graph!r} is neither 'step' nor 'off'")
        self.name = library.engine
        self.precision = precision
        self.spec = bundle.graph(component, precision).spec
        self._cuda_graph = cuda_graph
        self._messages = Messages()
        self._buckets: OrderedDict[tuple[object, ...], Bucket] = OrderedDict()
        self._module = library.load()
        self._shared: Device | None = device_of(device)
        try:
            plan = plan_for(library, bundle, component, precision, self._shared.gpu, str(self._module.__version__))
            self._profiles = read_record(bundle, plan).profiles
            self._engine = self._deserialised(bundle, plan)
        except BaseException:
            self._shared.release()
            raise
        self.device = f"cuda:{device} ({self._shared.gpu.model})"

    def _deserialised(self, bundle: Bundle, plan: str) -> Any:
        """Open the plan, which is native code: only after its hash has been compared."""
        assert self._shared is not None
        file = bundle.checked_file(plan)
        with self._shared.lock:
            self._shared.make_current()
            self._runtime = self._module.Runtime(logger_for(self._module, self._messages))
            engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            said = "; ".join(self._messages.errors) or "no reason given"
            raise EngineError(f"{self.spec.name}: {self.name} cannot open {plan}: {said}; build it again")
        return engine

    def prepare(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        self._open_device()
        axes = check_buffers(self.spec, inputs, outputs)
        profile = self._profile_for(axes)
        held = dict(inputs), dict(outputs)

        def once() -> None:
            device = self._open_device()
            with device.lock:
                device.make_current()
                try:
                    self._bucket(device, profile, axes).run(*held)
                except EngineError as error:
                    if not self._messages.errors:
                        raise
                    said = "; ".join(self._messages.errors)
                    self._messages.errors.clear()
                    raise EngineError(f"{error} ({self.name} says: {said})") from error

        return once

    def _open_device(self) -> Device:
        if self._shared is None:
            raise EngineError(f"{self.spec.name}: this engine has been closed")
        return self._shared

    def _profile_for(self, axes: Mapping[str, int]) -> int:
        """Choose the profile that holds all axes, tuned nearest to them.

        Raises:
            UsageError: none does; the sizes that were built are listed.

        """
        fitting = [i for i, profile in enumerate(self._profiles) if _fits(profile, axes)]
        if not fitting:
            built = "; ".join(
                ", ".join(f"{axis} {length.min} to {length.max}" for axis, length in profile.items())
                for profile in self._profiles
            )
            asked = ", ".join(f"{axis} {length}" for axis, length in axes.items())
            raise UsageError(f"{self.spec.name}: no profile of the plan holds {asked}; there are: {built}")
        return min(fitting, key=lambda i: sum(abs(self._profiles[i][a].opt - n) for a, n in axes.items()))

    def _bucket(self, device: Device, profile: int, axes: Mapping[str, int]) -> Bucket:
        key = (profile, *sorted(axes.items()))
        if key not in self._buckets:
            while len(self._buckets) >= MOST_BUCKETS:
                self._buckets.popitem(last=False)[1].close()
            captured = self._cuda_graph == "step"
            self._buckets[key] = Bucket(device, self._engine, self._module, self.spec, profile, axes, captured=captured)
        self._buckets.move_to_end(key)
        return self._buckets[key]

    def close(self) -> None:
        """Release the plan and everything on the device."""
        device, self._shared = self._shared, None
        if device is None:
            return
        with device.lock:
            device.make_current()
            device.synchronize()
            for bucket in self._buckets.values():
                bucket.close()
            self._buckets.clear()
            self._engine = self._runtime = None
        device.release()


def _fits(profile: Profile, axes: Mapping[str, int]) -> bool:
    return all(profile[axis].min <= length <= profile[axis].max for axis, length in axes.items())
