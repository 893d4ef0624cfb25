"""Compares plans that were just built with torch, where both can run."""

from collections.abc import Callable, Sequence

import msgspec

from .. import eager
from ..bundle.bundle import Bundle
from ..bundle.manifest import Manifest, Verification
from ..cuda.gpu import gpu_here
from ..errors import EngineError
from ..parity import TOLERANCES, Verify, check_verify, differences, plan_specs
from ..registry import ENGINES
from .build_plans import BuiltPlan
from .library import library_of
from .locked import rewrite_manifest
from .place import plan_for

__all__ = ["PLAN_TOLERANCES", "verify_plans"]

PLAN_TOLERANCES = TOLERANCES | {"fp32": 1e-2}
"""The compiler may multiply float32 as TF32, with ten bits of mantissa, as torch's convolutions do."""


def verify_plans(bundle: Bundle, plans: Sequence[BuiltPlan], verify: Verify, report: Callable[[str], None]) -> None:
    """Compare plans with torch in float32, and write the results into the manifest.

    Args:
        bundle: opened after the build.
        plans: what was built; those that were there already are compared as well.
        verify: ``fast`` in one profile, ``full`` in all of them at several sizes, or ``off``.
        report: called with the results, and why a plan is not compared.

    Raises:
        UsageError: ``verify`` is none of these.
        ExportError: a difference is beyond :data:`PLAN_TOLERANCES`; the plan stays in the bundle.
        EngineError: a plan for this machine cannot be opened or run.

    """
    check_verify(verify)
    results: list[Verification] = []
    for plan in plans if verify != "off" else ():
        source = plan.record.source
        reason = _why_not(bundle, plan)
        if reason is not None:
            report(f"{source.component}: not verified: {reason}")
            continue
        spec = bundle.graph(source.component, source.precision).spec
        specs = plan_specs(spec, plan.record.profiles, verify)
        tolerance = PLAN_TOLERANCES[source.precision]
        for result in differences(bundle, source.component, source.precision, [source.engine], specs, tolerance):
            report(f"{source.component}: differs from torch by {result.relative_error:.1e} at {result.axes}")
            results.append(result)
    if results:
        rewrite_manifest(bundle.path, lambda manifest: _with_results(manifest, results))


def _why_not(bundle: Bundle, plan: BuiltPlan) -> str | None:
    source = plan.record.source
    reason = ENGINES[source.engine].module.unavailable() or eager.unavailable()
    if reason is not None:
        return reason
    gpu = gpu_here()
    assert gpu is not None
    try:
        plan_for(library_of(source.engine), bundle, source.component, source.precision, gpu, source.version)
    except EngineError as error:
        return str(error)
    return None


def _with_results(manifest: Manifest, results: Sequence[Verification]) -> Manifest:
    """Replace earlier results of the same components on the same engine in the same precision."""
    new = {(result.component, result.engine, result.precision) for result in results}
    others = [old for old in manifest.verification if (old.component, old.engine, old.precision) not in new]
    return msgspec.structs.replace(manifest, verification=[*others, *results])
