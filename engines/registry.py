"""Which engine runs a component: the requested one, or the first that the bundle holds and the machine can run.

Falling back is never silent: every engine that was skipped is reported with its reason.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, get_args

from .bundle.bundle import PRECISIONS, Bundle
from .engine import Engine
from .errors import DamagedBundleError, EngineError, EngineUnavailableError, SdengineError, UsageError, nearest
from .opening_options import OpeningOptions

__all__ = [
    "ENGINES",
    "EngineKind",
    "Fallback",
    "FallbackPolicy",
    "Opened",
    "check_choice",
    "default_precision",
    "exported_first",
    "open_engine",
]

FallbackPolicy = Literal["allow", "error"]


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """One of the engines: adding one adds its module and a line in :data:`ENGINES`.

    Attributes:
        where: the module, which has ``NAME``, ``unavailable()`` and ``version()``, and ``preferred()`` where the
            default precision depends on the machine or the device. It is imported when it is needed: most programs run
            one engine.
        opens: name of its constructor.
        precisions: what it runs, preferred first.
        options: that its constructor has beside the precision.
        devices: kinds of devices that it can run on.
        builds_plans: whether it runs plans that are built ahead of time, see :mod:`sdengine.engines.trt`.
        reference: whether the others are compared with it.

    """

    where: str
    opens: str
    precisions: tuple[str, ...]
    options: tuple[str, ...]
    devices: tuple[str, ...]
    builds_plans: bool = False
    reference: bool = False

    @property
    def module(self) -> ModuleType:
        """The module."""
        return import_module(self.where, __package__)

    def open(self, bundle: Bundle, component: str, **options: Any) -> Engine:
        """Open a component."""
        engine: Engine = getattr(self.module, self.opens)(bundle, component, **options)
        return engine

    def choose(self, graphs: Collection[str], device: str | None) -> str | None:
        """Return the default precision; None where the component has no graph for this engine."""
        preferred: Callable[..., str | None] | None = getattr(self.module, "preferred", None)
        if preferred is not None:
            return preferred(graphs, device)
        return next((p for p in self.precisions if p in graphs), None)


_PLAN: Any = {
    "opens": "open_plan",
    "precisions": ("fp16", "bf16", "fp32"),
    "options": ("device", "cuda_graph", "weight_streaming_budget"),
    "devices": ("cuda",),
    "builds_plans": True,
}
_CPU: Any = {"options": ("threads",), "devices": ("cpu",)}

ENGINES: dict[str, EngineKind] = {
    "tensorrt": EngineKind(where=".trt.run_tensorrt", **_PLAN),
    "tensorrt-rtx": EngineKind(where=".trt.run_tensorrt_rtx", **_PLAN),
    "onnxruntime-cuda": EngineKind(
        where=".ort.onnxruntime_cuda",
        opens="OnnxRuntimeCudaEngine",
        precisions=("fp16", "fp32"),
        options=("device", "memory_limit"),
        devices=("cuda",),
    ),
    "openvino": EngineKind(where=".ov.openvino_cpu", opens="OpenVinoEngine", precisions=("fp32", "bf16"), **_CPU),
    "onnxruntime": EngineKind(
        where=".ort.onnxruntime_cpu", opens="OnnxRuntimeEngine", precisions=("fp32", "fp16"), **_CPU
    ),
    "torch": EngineKind(
        where=".eager",
        opens="open_torch",
        precisions=("fp32", "bf16", "fp16"),
        options=("threads", "device", "cuda_graph", "compile"),
        devices=("cpu", "cuda"),
        reference=True,
    ),
}
"""In the order in which they are tried where nothing else is known; see :mod:`.fastest` for what ``auto`` goes by."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """An engine that was skipped, and why."""

    component: str
    requested: str
    skipped: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open engine, what was skipped before it, and the options that it does not have."""

    engine: Engine
    fallbacks: tuple[Fallback, ...]
    unused: tuple[str, ...] = ()


def check_choice(engine: str, precision: str | None, fallback: str | None) -> None:
    """Check that there are an engine, a precision and a policy of these names.

    Raises:
        UsageError: there is none.

    """
    if engine != "auto" and engine not in ENGINES:
        known = ", ".join(["auto", *ENGINES])
        raise UsageError(f"unknown engine {engine!r}; there are {known}{nearest(engine, ENGINES)}")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if fallback is not None and fallback not in get_args(FallbackPolicy):
        raise UsageError(f"fallback={fallback!r} is neither allow nor error")


def open_engine(
    bundle: Bundle,
    component: str,
    *,
    engine: str = "auto",
    precision: str | None = None,
    fallback: FallbackPolicy | None = None,
    options: OpeningOptions | None = None,
    order: Sequence[str] | None = None,
) -> Opened:
    """Open a component.

    Args:
        bundle: the bundle.
        component: which component.
        engine: a name of :data:`ENGINES`, or ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``; None is :func:`default_precision`.
        fallback: ``error`` refuses where the named engine cannot run, ``allow`` tries the others; None means
            ``allow`` for ``auto`` and ``error`` for a named engine.
        options: see there. An engine that was not named may lack one; the result says so.
        order: in which engines that were not named are tried, see :func:`.fastest.auto_order`; None is first those that
            the bundle was exported for.

    Raises:
        DamagedBundleError: a file that the engine reads is not what was exported; nothing else is tried.
        UsageError: an unknown engine, or an option that the named engine does not have.
        EngineError: nothing that is allowed can run the component; the reasons are listed.

    """
    check_choice(engine, precision, fallback)
    set_options = (options or OpeningOptions()).set_options
    policy = fallback or ("allow" if engine == "auto" else "error")
    skipped: list[Fallback] = []
    for name in _candidates(engine, policy, order or exported_first(bundle)):
        try:
            accepted = _accepted(name, set_options, named=name == engine)
            opened = _open(bundle, component, name, precision, accepted, named=name == engine)
        except DamagedBundleError:
            raise  # no other engine is tried: it would run what was not exported
        except SdengineError as error:
            if policy == "error":
                raise
            skipped.append(Fallback(component=component, requested=engine, skipped=name, reason=str(error)))
        else:
            unused = tuple(option for option in set_options if option not in (*ENGINES[name].options, "device"))
            return Opened(engine=opened, fallbacks=tuple(skipped), unused=unused)
    reasons = "; ".join(f"{f.skipped}: {f.reason}" for f in skipped)
    raise EngineError(f"no engine can run {component}: {reasons}")


def _candidates(engine: str, policy: str, order: Sequence[str]) -> Iterator[str]:
    """Yield the engines to try: the named one, then the others."""
    if engine != "auto":
        yield engine
    if policy == "allow":
        yield from (name for name in order if name != engine)


def exported_first(bundle: Bundle) -> list[str]:
    """Return all engines, those that a bundle was exported for and verified with first.

    The others run from its graphs all the same.
    """
    exported = bundle.manifest.engines
    return sorted(ENGINES, key=lambda name: name not in exported)


def _accepted(name: str, options: dict[str, Any], *, named: bool) -> dict[str, Any]:
    """Return the options that an engine has; ``device`` decides whether it may run at all."""
    kind = ENGINES[name]
    device = options.get("device")
    if device is not None and str(device).split(":")[0] not in kind.devices:
        raise UsageError(f"{name} runs on {' or '.join(kind.devices)}, not on {device}")
    for option in options:
        if named and option not in (*kind.options, "device"):
            has = ", ".join(n for n, other in ENGINES.items() if option in other.options)
            raise UsageError(f"{name} has no option {option}; it is for {has}")
    return {option: value for option, value in options.items() if option in kind.options}


def default_precision(bundle: Bundle, component: str, name: str, *, device: str | None, named: bool) -> str | None:
    """Return what an engine computes in where nobody says it; None where the component has no graph for it.

    An engine that was named, here or at export, takes what is fastest on this machine: OpenVINO computes float32 graphs
    in bfloat16 on CPUs that multiply in it. One that ``auto`` chose computes in what a graph was exported in: which
    engine is the fastest must not decide how exact an image is.
    """
    kind, graphs = ENGINES[name], bundle.component(component).graphs
    chosen = kind.choose(graphs, device)
    if chosen in graphs or chosen is None or named or name in bundle.manifest.engines:
        return chosen
    return next((precision for precision in kind.precisions if precision in graphs), None)


def _open(
    bundle: Bundle, component: str, name: str, precision: str | None, options: dict[str, Any], *, named: bool
) -> Engine:
    kind = ENGINES[name]
    reason = kind.module.unavailable()
    if reason is not None:
        raise EngineUnavailableError(reason)
    if precision is None:
        precision = default_precision(bundle, component, name, device=options.get("device"), named=named)
        if precision is None:
            graphs = bundle.component(component).graphs
            raise EngineError(_no_graph(component, name, graphs, kind.precisions))
    elif precision not in kind.precisions:
        raise EngineError(f"{name} cannot run {precision}; it runs {', '.join(kind.precisions)}")
    opened = kind.open(bundle, component, precision=precision, **options)
    if opened.precision != precision:
        raise EngineError(f"{name} should compute in {precision} and opened in {opened.precision}")
    return opened


def _no_graph(component: str, engine: str, graphs: Collection[str], precisions: Collection[str]) -> str:
    """Say why an engine takes none of a component's graphs: it runs others, or this machine computes otherwise."""
    held = f"the bundle holds {component} in {', '.join(graphs)}"
    if {*graphs} & {*precisions}:
        return f"{held}, which {engine} runs on machines that multiply in it; this one does not"
    return f"{held}; {engine} runs {' and '.join(precisions)}"
