"""Compares compiled components with torch in float32: graphs at shapes that were not traced, plans in profiles."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Literal, get_args

import msgspec
import numpy as np

from .bundle.bundle import Bundle
from .bundle.manifest import Verification
from .engine import Array, run
from .errors import ExportError, UsageError
from .registry import ENGINES, open_engine
from .spec import AxisRange, ComponentSpec, TensorSpec

__all__ = [
    "TOLERANCES",
    "Verify",
    "check_verify",
    "differences",
    "plan_specs",
    "relative_error",
    "sample",
    "verify_bundle",
]

Verify = Literal["full", "fast", "off"]

TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 2e-1}
"""Largest difference over the largest value. In float32 only the order of sums differs; half precisions carry 11 and
8 bits through some hundred layers."""

_CASES = {"full": 3, "fast": 1, "off": 0}


def check_verify(value: str) -> None:
    """Raise UsageError unless the value is one of ``full``, ``fast`` and ``off``."""
    if value not in get_args(Verify):
        raise UsageError(f"verify={value!r} is none of {', '.join(get_args(Verify))}")


def verify_bundle(
    bundle: Bundle, engines: Sequence[str], verify: Verify, say: Callable[[str], None] = lambda note: None
) -> Iterator[Verification]:
    """Compare the graphs; ``fast`` at one set of sizes per component, ``full`` at three.

    Engines that cannot run on this machine, or not in the precision of a graph, are left out, and ``say`` is called
    with why: what was compared is what the results name.

    Raises:
        ExportError: a difference is beyond :data:`TOLERANCES`.

    """
    # Plans are built after this, from the graphs that the other engines are compared with.
    compared = [n for n in engines if n in ENGINES and not (ENGINES[n].reference or ENGINES[n].builds_plans)]
    runnable = [n for n in compared if ENGINES[n].module.unavailable() is None]
    for name, component in bundle.manifest.components.items():
        for precision, graph in component.graphs.items():
            taken = [n for n in runnable if precision in ENGINES[n].precisions]
            able = [n for n in taken if ENGINES[n].choose([precision], None) is not None]
            for engine in taken if verify != "off" else ():
                if engine not in able:
                    say(
                        f"note: {name} is not verified in {precision}: {engine} does not multiply in it on this machine"
                    )
            specs = [graph.spec] * _CASES[verify]
            yield from differences(bundle, name, precision, able, specs, TOLERANCES[precision])


def plan_specs(spec: ComponentSpec, profiles: Sequence[Mapping[str, AxisRange]], verify: Verify) -> list[ComponentSpec]:
    """Return what to compare a plan at: ``fast`` in its first profile, ``full`` three times or in each profile."""
    count = max(_CASES[verify], len(profiles)) if verify == "full" else _CASES[verify]
    narrowed = [msgspec.structs.replace(spec, axes=dict(profile)) for profile in profiles]
    return [narrowed[i % len(narrowed)] for i in range(count)]


def differences(
    bundle: Bundle,
    name: str,
    precision: str,
    engines: Sequence[str],
    specs: Sequence[ComponentSpec],
    tolerance: float,
) -> Iterator[Verification]:
    """Compare a component on some engines with torch in float32.

    Args:
        bundle: the bundle.
        name: the component.
        precision: of the graph.
        engines: that can run it.
        specs: its spec, once for each set of sizes to compare at, with the axes to choose them from.
        tolerance: the largest difference over the largest value.

    Raises:
        ExportError: a difference is beyond the tolerance.

    """
    if not engines or not specs:
        return
    samples = [sample(spec, case) for case, spec in enumerate(specs)]
    with closing(open_engine(bundle, name, engine="torch", precision="fp32").engine) as torch:
        expected = [run(torch, {k: _typed(a, torch.spec.input(k)) for k, a in inputs.items()}) for _, inputs in samples]
    for engine in engines:
        with closing(open_engine(bundle, name, engine=engine, precision=precision).engine) as opened:
            for (axes, inputs), reference in zip(samples, expected, strict=True):
                error = relative_error(run(opened, inputs), reference)
                if not error <= tolerance:
                    raise ExportError(
                        f"{name} in {precision} on {engine} differs from torch by {error:.2g} at {axes}; "
                        f"at most {tolerance} is allowed. Try --precision fp32"
                    )
                yield Verification(component=name, engine=engine, precision=precision, axes=axes, relative_error=error)


def _typed(array: Array, tensor: TensorSpec) -> Array:
    return array.astype(tensor.dtype)


_SIZES: tuple[dict[str, int], ...] = (
    {"S": 1, "R": 2, "B": 2, "T": 77, "E": 1},
    {"S": 2, "R": 3, "B": 3, "T": 154, "E": 2},
    {"S": 1, "R": 1, "B": 1, "T": 77, "E": 1},
)


def sample(spec: ComponentSpec, case: int) -> tuple[dict[str, int], dict[str, Array]]:
    """Choose sizes, small and not square, and random inputs of realistic magnitudes."""
    rng = np.random.default_rng(case)
    case %= len(_SIZES)
    sizes = _SIZES[case] | {"h": (5, 7, 4)[case], "w": (6, 4, 9)[case]}
    axes = {axis: _fit(allowed, sizes[axis], axis) for axis, allowed in spec.axes.items()}
    return axes, {tensor.name: _random(rng, tensor, axes) for tensor in spec.inputs}


def _fit(allowed: AxisRange, size: int, axis: str) -> int:
    least = allowed.min + size - 4 if axis in "hw" else size
    return max(allowed.min, min(allowed.max, least))


def _random(rng: np.random.Generator, tensor: TensorSpec, axes: dict[str, int]) -> Array:
    shape = tensor.resolve(axes)
    if tensor.name == "input_ids":
        return rng.integers(0, 40, shape)
    if tensor.name in ("attention_mask", "text_mask"):
        return np.ones(shape, tensor.dtype)
    if tensor.name == "layer":
        return np.array([1])
    if tensor.name == "row_sample":
        return np.arange(shape[0]) % axes["S"]
    if tensor.name == "rescale":
        return np.zeros(shape, np.float32)
    if tensor.name == "clip":
        return rng.random(shape, np.float32)
    if tensor.name in ("timestep", "time_ids"):
        return rng.integers(1, 1000, shape).astype(np.float32)
    if tensor.name == "image":
        return rng.random(shape, np.float32)
    return rng.standard_normal(shape, np.float32).astype(tensor.dtype)


def relative_error(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return the largest difference over the largest value, of all outputs."""
    worst = 0.0
    for name, reference in expected.items():
        values, expected_values = actual[name].astype(np.float64), reference.astype(np.float64)
        scale = max(float(np.abs(expected_values).max()), 1e-6)
        slack = 1.0 if reference.dtype == np.uint8 else 0.0  # a value on the edge between two bytes may take either
        error = max(float(np.abs(values - expected_values).max()) - slack, 0.0) / scale
        worst = max(worst, error) if np.isfinite(error) else float("inf")
    return worst
