"""The estimate adds up what the plans' descriptions say; the table shows it."""

from pathlib import Path

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.trt import COLUMNS, BuildOptions, build_engines, memory_estimates, rows_of

from .bundles import copy_of

pytest.importorskip("tensorrt_rtx")


def test_the_estimate_adds_up(tmp_path: Path) -> None:
    path = copy_of("sd1", tmp_path)
    options = BuildOptions(targets=("sm89",), optimization_level=0)
    plans = build_engines(path, "tensorrt-rtx", options=options, components=["conditioner", "text_encoder"])
    bundle = Bundle(path)
    [found] = memory_estimates(bundle)
    assert (found.engine, found.target) == ("tensorrt-rtx", "sm89")
    assert found.scratch == max(plan.record.activation_bytes or 0 for plan in plans)
    assert found.weights == sum(plan.record.weight_bytes or 0 for plan in plans)
    assert found.unknown_scratch == ()
    for plan in found.plans:
        assert plan.unopened is not None and plan.scratch == plan.record.activation_bytes, "a total, and why"
    spec = bundle.graph("text_encoder", "fp16").spec
    texts, added = spec.axes["B"].max, spec.axes["E"].max
    width, tokens = 24, 77
    expected = 8 * (2 * texts * tokens + 1) + 4 * added * width + 4 * texts * (tokens * width + width)
    assert found.plans[1].buffers == (expected,)
    assert found.total == found.weights + found.scratch + found.buffers
    for row, plan in zip(rows_of(plans), plans, strict=True):
        assert len(row) == len(COLUMNS)
        assert row[0] == plan.record.source.component
