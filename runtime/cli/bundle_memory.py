"""What a bundle will need on the device, for ``sdengine inspect --memory``."""

from typing import Any

from ...engines.bundle.bundle import Bundle
from ...engines.trt import MemoryEstimate, memory_estimates
from ...engines.trt.plan_memory import PlanMemory
from .console import out, table

__all__ = ["memory_of", "print_memory"]

_ON_TOP = "The CUDA context and captured graphs come on top; their size is known only on the GPU."


def memory_of(bundle: Bundle) -> list[dict[str, Any]]:
    """Return the estimates as plain data, in bytes, one for each engine and target."""
    return [
        {
            "engine": estimate.engine,
            "version": estimate.version,
            "target": estimate.target,
            "weights": estimate.weights,
            "scratch": estimate.scratch,
            "buffers": estimate.buffers,
            "total": estimate.total,
            "on_top": ["cuda_context", "captured_graphs", *(f"scratch of {name}" for name in estimate.unknown_scratch)],
            "plans": [
                {
                    "component": plan.component,
                    "precision": plan.record.source.precision,
                    "weights": plan.weights,
                    "weights_streamed": plan.record.source.options.weight_streaming,
                    "scratch": plan.scratch,
                    "scratch_by_profile": None if plan.unopened else list(plan.scratch_by_profile),
                    "scratch_is_a_total_because": plan.unopened,
                    "buffers_by_profile": list(plan.buffers),
                }
                for plan in estimate.plans
            ],
        }
        for estimate in memory_estimates(bundle)
    ]


def print_memory(bundle: Bundle) -> None:
    """Print a table for each engine and target."""
    estimates = memory_estimates(bundle)
    if not estimates:
        out.print(f"the bundle holds no plans; run `sdengine build {bundle.path.name} --engine ...` first")
    for estimate in estimates:
        _print(estimate)


def _print(estimate: MemoryEstimate) -> None:
    shown = table(
        f"Device memory in MB: {estimate.engine} {estimate.version}, {estimate.target}",
        *("component", "precision", "weights", "scratch of each profile", "buffers of each profile"),
    )
    for plan in estimate.plans:
        shown.add_row(
            plan.component,
            plan.record.source.precision,
            _megabytes(plan.weights) + (", streamed" if plan.record.source.options.weight_streaming else ""),
            _scratch(plan),
            ", ".join(_megabytes(size) for size in plan.buffers),
        )
    shown.add_section()
    shown.add_row("all", "", _megabytes(estimate.weights), _megabytes(estimate.scratch), _megabytes(estimate.buffers))
    out.print(shown)
    out.print(
        f"{_megabytes(estimate.total)} MB in all: scratch is shared, buffers are of the largest profile. {_ON_TOP}"
    )
    for reason in dict.fromkeys(plan.unopened for plan in estimate.plans if plan.unopened is not None):
        out.print(f"scratch is a total over the profiles where plans cannot be opened: {reason}", highlight=False)
    if estimate.unknown_scratch:
        out.print(f"not reported by the library, also on top: scratch of {', '.join(estimate.unknown_scratch)}")


def _scratch(plan: PlanMemory) -> str:
    if plan.scratch is None:
        return "?"
    if isinstance(plan.scratch_by_profile, str):
        return f"{_megabytes(plan.scratch)} in total"
    return ", ".join(_megabytes(size) for size in plan.scratch_by_profile)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
