"""The report that a real measurement writes: valid, whole, and true to its samples."""

import base64
import hashlib
import io
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from sdengine.benchmarks.bench import load
from sdengine.benchmarks.bench.figure import Absent
from sdengine.benchmarks.bench.figure_text import number
from sdengine.benchmarks.bench.load import load_cases
from sdengine.benchmarks.bench.remarks import remarks_on
from sdengine.benchmarks.bench.report import LoadFigures
from sdengine.benchmarks.bench.report_page import _settings
from sdengine.benchmarks.bench.saved import make_schema, read_report, report_schema
from sdengine.benchmarks.bench.settings import BenchOptions, settings_for
from sdengine.engines.bundle.bundle import Bundle

from ...bundles import bundle_of
from .runs import bench, figures_in


def test_the_published_schema_is_in_step_with_the_structs() -> None:
    assert _in_one_order(json.loads(report_schema())) == _in_one_order(make_schema())


def _in_one_order(value: Any) -> Any:
    """Sort the alternatives of a schema: releases of msgspec list them in different orders."""
    if isinstance(value, dict):
        value = {key: _in_one_order(part) for key, part in value.items()}
        return value | ({"anyOf": sorted(value["anyOf"], key=json.dumps)} if "anyOf" in value else {})
    return [_in_one_order(part) for part in value] if isinstance(value, list) else value


def test_settings_that_nobody_set_are_told_as_they_were_used(measured: Path) -> None:
    report = read_report(measured / "report.json")
    assert report.used is not None
    shown = dict(_settings(report))
    assert (report.settings.scheduler, shown["scheduler"]) == (None, f"{report.used.scheduler} (the checkpoint's)")
    assert report.used.scheduler.endswith("Scheduler")
    assert "None" not in shown.values()


def test_torch_is_measured_beside_the_engines_of_the_bundle() -> None:
    settings, _ = settings_for(BenchOptions(), Bundle(bundle_of("sdxl")))
    assert settings.engines == ["onnxruntime", "torch"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12\u202f346")]
)
def test_numbers_have_three_digits_and_are_whole_from_a_hundred_on(value: float, text: str) -> None:
    assert number(value) == text


def test_the_schema_is_printed() -> None:
    printed = bench("--schema")
    assert printed.returncode == 0, printed.stderr
    schema = json.loads(printed.stdout)
    Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["Case"]["properties"]["throughput"]["description"] == "images per second."


def test_the_report_is_valid(measured: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    validator = Draft202012Validator(json.loads(report_schema()))
    validator.validate(report)
    del report["engines"][0]["cold_start"]["compile"]
    assert not validator.is_valid(report)
    assert sorted(file.name for file in measured.iterdir()) == ["report.html", "report.json"]


def test_every_figure_has_its_samples(measured: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    for figure in figures_in(report):
        samples = np.concatenate(figure["rounds"])
        expected = np.percentile(samples, [50, 90, 99])
        assert [figure["p50"], figure["p90"], figure["p99"]] == pytest.approx(expected, abs=1e-3)
        assert len(figure["rounds"]) == 2
    for engine in report["engines"]:
        cold = engine["cold_start"]
        parts = [cold[name]["rounds"] for name in cold if name != "total"]
        assert np.allclose(np.sum(parts, axis=0), cold["total"]["rounds"], atol=0.01)
        assert [(case["batch"], case["step"]["per_run"]) for case in engine["cases"]] == [(1, 2), (2, 2)]
        for case in engine["cases"]:
            assert [len(samples) for samples in case["stages"]["total"]["rounds"]] == [3, 3]
            assert [len(samples) for samples in case["step"]["rounds"]] == [6, 6]
            total = np.array(case["stages"]["total"]["rounds"])
            assert np.allclose(np.array(case["throughput"]["rounds"]), case["batch"] * 1e3 / total, rtol=1e-3)
            assert np.array(case["step"]["rounds"]).sum() < np.array(case["stages"]["denoise"]["rounds"]).sum()


def test_changes_of_size_are_measured_though_one_size_is_asked(measured: Path) -> None:
    for engine in read_report(measured / "report.json").engines:
        changes = engine.size_changes
        assert isinstance(changes, list)
        assert [(change.before, change.after, change.seen) for change in changes] == [
            ((40, 48), (40, 112), False),
            ((40, 112), (40, 48), True),
        ]


def test_images_are_compared_with_torch_and_shown(measured: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    assert (report["reference"]["version"], report["reference"]["device"]) == (version("torch"), "cpu")
    images = [report["reference"]["images"][0]["image"]]
    for engine in report["engines"]:
        assert {ran["precision"] for ran in engine["components"].values()} == {"fp32"}
        for case in engine["cases"]:
            assert case["difference"]["kind"] == "difference"
            assert case["difference"]["largest"] <= 2
            assert case["difference"]["psnr_db"] is None or case["difference"]["psnr_db"] > 50
            images.append(case["image"])
    for image in images:
        data = base64.b64decode(image["data"].removeprefix("data:image/webp;base64,"))
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == (48, 40)
            assert hashlib.sha256(opened.convert("RGB").tobytes()).hexdigest() == image["sha256"]


def test_bundle_settings_and_environment_are_in_it(measured: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    manifest = (bundle_of("sdxl") / "manifest.json").read_bytes()
    assert report["bundle"]["sha256"] == hashlib.sha256(manifest).hexdigest()
    assert report["settings"]["sizes"] == [[40, 48]]
    assert report["settings"]["prompt"] == "a cat & a <dog>"
    environment = report["environment"]
    assert environment["packages"]["onnxruntime"] == version("onnxruntime")
    assert environment["cpu"]["model"]
    assert environment["variables"]["OMP_NUM_THREADS"] == "1"
    assert report["published"]["reason"].startswith("none for this model")


def test_the_terminal_shows_the_figures(measured: Path) -> None:
    printed = " ".join((measured.parent / "printed.txt").read_text().split())
    shown = bench("--from", measured / "report.json")
    assert shown.returncode == 0
    assert " ".join(shown.stdout.split()) == printed
    for word in (
        "onnxruntime",
        "openvino:fp32",
        "48x40",
        "Cold start",
        "images/s",
        "from float32 torch",
        "none for this",
        "Under load",
    ):
        assert word in printed


def test_without_a_reference_the_report_says_so() -> None:
    least = ("--size", "32x32", "--steps", "1", "--batch", "1", "--rounds", "1", "--runs", "1", "--engine", "torch")
    done = bench(bundle_of("sdxl"), *least, "--no-reference", "--no-load", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    Draft202012Validator(json.loads(report_schema())).validate(report)
    reason = {"kind": "absent", "reason": "it was switched off with --no-reference"}
    assert report["reference"] == reason
    assert report["engines"][0]["cases"][0]["difference"] == reason
    assert report["engines"][0]["load"] == []


def test_clients_and_workers_are_measured_under_load(measured: Path) -> None:
    report = read_report(measured / "report.json")
    for engine in report.engines:
        [case] = engine.load
        assert (case.workers, case.clients) == (1, 3)
        assert isinstance(case.measured, LoadFigures)
        _check_load(case.measured)
    settings = msgspec.structs.replace(report.settings, clients=[1], workers=[1, 2], threads=None)
    ticks: list[str] = []
    bundle = Bundle(bundle_of("sdxl"))
    alone, two = load_cases(bundle, "onnxruntime", settings, on_cpu=True, tick=ticks.append)
    assert ticks == ["1 clients", "2 workers, 1 clients each"]
    assert (alone.threads, two.threads) == (None, max(1, len(os.sched_getaffinity(0)) // 2))
    assert (two.workers, two.clients) == (2, 2)
    assert isinstance(alone.measured, LoadFigures)
    assert isinstance(two.measured, LoadFigures)
    _check_load(two.measured)
    assert two.measured.memory_mb > alone.measured.memory_mb  # type: ignore[operator]


def _check_load(figures: LoadFigures) -> None:
    assert figures.images_per_s > 0
    assert 0 < figures.p50_ms <= figures.p90_ms
    assert 0 < figures.cores <= (os.cpu_count() or 1) + 0.5
    assert figures.memory_mb is not None
    assert 10 < figures.memory_mb < 10_000


def test_workers_that_would_not_fit_are_not_started(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "free_host_memory", lambda: 1)
    report = read_report(measured / "report.json")
    settings = msgspec.structs.replace(report.settings, clients=[1], workers=[8])
    done = load_cases(Bundle(bundle_of("sdxl")), "onnxruntime", settings, on_cpu=True, tick=lambda label: None)
    refused = done[-1].measured
    assert isinstance(refused, Absent)
    assert "they would take" in refused.reason
    engines = [msgspec.structs.replace(report.engines[0], load=done)]
    told = remarks_on(msgspec.structs.replace(report, engines=engines))
    assert f"onnxruntime: 8 workers were not measured: {refused.reason}" in told
