"""``--compare``: worse and missing figures fail, noise and improvements do not, other settings are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sdengine.benchmarks.bench.chance import change_and_noise
from sdengine.benchmarks.bench.compare_reports import compare_reports
from sdengine.benchmarks.bench.figure import Figure, figure_of
from sdengine.benchmarks.bench.saved import read_report

from ...bundles import bundle_of
from .runs import bench, doctored, figures_in, scaled

Change = Callable[[dict[str, Any]], object]


def compared(measured: Path, tmp_path: Path, change: Change, *options: str) -> tuple[int, str, str]:
    """Compare a changed report, as the new one, with the measured one."""
    new = doctored(measured, tmp_path / "new.json", change)
    done = bench("--from", new, "--compare", measured / "report.json", *options)
    return done.returncode, done.stdout, done.stderr


def slower(report: dict[str, Any]) -> None:
    scaled(figures_in(report["engines"][1]["cases"][0]["stages"]["decode"]), 30)


def test_what_is_the_same_passes(measured: Path, tmp_path: Path) -> None:
    status, printed, complaints = compared(measured, tmp_path, lambda report: None, "--tolerance", "0")
    assert status == 0, complaints
    assert "worse" not in printed
    assert "+0.0%" in printed


def test_what_is_worse_fails_and_is_named(measured: Path, tmp_path: Path) -> None:
    status, printed, complaints = compared(measured, tmp_path, slower)
    assert status == 1
    assert "1 figures fail" in complaints
    assert "openvino:fp32: 48x40, 2 steps, batch 1, decode p50: worse (+2900.0%)" in complaints
    assert printed.count("worse") == 2  # in its row and in the count


def test_what_is_better_passes(measured: Path, tmp_path: Path) -> None:
    old = doctored(measured, tmp_path / "old.json", slower)
    done = bench("--from", measured / "report.json", "--compare", old)
    assert done.returncode == 0, done.stderr
    assert "1 better" in done.stdout


def test_more_images_per_second_are_better(measured: Path, tmp_path: Path) -> None:
    def more(report: dict[str, Any]) -> None:
        scaled([report["engines"][0]["cases"][1]["throughput"]], 40)

    status, printed, _ = compared(measured, tmp_path, more)
    assert (status, "1 better" in printed) == (0, True)


def test_what_is_within_the_tolerance_passes(measured: Path, tmp_path: Path) -> None:
    status, _, complaints = compared(measured, tmp_path, slower, "--tolerance", "3000")
    assert status == 0, complaints


def test_a_worse_image_fails(measured: Path, tmp_path: Path) -> None:
    def spoil(report: dict[str, Any]) -> None:
        report["engines"][0]["cases"][0]["difference"] |= {"largest": 90.0, "rms": 12.0, "psnr_db": 26.5}

    status, _, complaints = compared(measured, tmp_path, spoil)
    assert status == 1
    assert "onnxruntime: 48x40, 2 steps, batch 1, rms difference from torch: worse" in complaints


def test_missing_figures_fail(measured: Path, tmp_path: Path) -> None:
    absent = {"kind": "absent", "reason": "lost"}

    def lose(report: dict[str, Any]) -> None:
        del report["engines"][1]
        report["engines"][0]["memory"]["peak"] = absent
        report["engines"][0]["cases"][0]["difference"] = absent

    status, _, complaints = compared(measured, tmp_path, lose)
    assert status == 1
    assert "onnxruntime: memory, peak: missing (lost)" in complaints
    assert "rms difference from torch: missing (lost)" in complaints
    assert "openvino:fp32: cold start, total: missing (the new report has no such figure)" in complaints
    back = bench("--from", measured / "report.json", "--compare", tmp_path / "new.json")
    assert back.returncode == 0, "what is measured now and was not then is no failure"
    assert "added" in back.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["settings"].update(seed=4), "seed was 0 and is 4"),
        (lambda r: r["settings"].update(steps=[3]), "steps was [2] and is [3]"),
        (lambda r: r["bundle"].update(weights_sha256="0" * 64), "the weights differ"),
    ],
    ids=["seed", "steps", "weights"],
)
def test_what_cannot_be_compared_is_refused(measured: Path, tmp_path: Path, change: Change, message: str) -> None:
    status, printed, complaints = compared(measured, tmp_path, change)
    assert status == 2
    assert message in complaints
    assert printed == ""


def test_what_cannot_be_compared_is_refused_before_measuring(measured: Path) -> None:
    done = bench(bundle_of("sdxl"), "--seed", "4", "--compare", measured / "report.json")
    assert (done.returncode, "seed was 0 and is 4" in done.stderr) == (2, True)
    assert "round" not in done.stderr


def test_a_new_measurement_takes_the_settings_of_the_old_one(measured: Path) -> None:
    least = ("--engine", "onnxruntime", "--rounds", "1", "--no-reference")
    done = bench(bundle_of("sdxl"), *least, "--compare", measured / "report.json", "--tolerance", "1000000")
    assert done.returncode == 1
    assert "worse" not in done.stderr
    assert (
        "onnxruntime: 48x40, 2 steps, batch 2, rms difference from torch: missing (it was switched off" in done.stderr
    )
    assert "openvino:fp32: 48x40, 2 steps, batch 2, total: missing" in done.stderr
    assert "changed: rounds: 2 then, 1 now" in done.stderr


def test_other_circumstances_are_named(measured: Path, tmp_path: Path) -> None:
    def elsewhere(report: dict[str, Any]) -> None:
        report["environment"]["cpu"]["model"] = "Abacus"
        report["environment"]["packages"]["numpy"] = "0.1"
        report["bundle"]["sha256"] = "0" * 64

    status, _, complaints = compared(measured, tmp_path, elsewhere)
    assert status == 0
    for text in ('now is "Abacus"', "numpy:", "0.1 now", "the bundle was exported again"):
        assert text.replace("now is ", "") in complaints


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema=99), "has schema 99, this version reads 2"),
        (lambda r: r.pop("schema"), "it names no schema"),
        (lambda r: r["engines"][0]["cases"][0].pop("step"), "missing required field `step`"),
        (lambda r: r["engines"][0].update(mood="good"), "unknown field `mood`"),
        (lambda r: r["engines"][0]["cold_start"]["open"].update(p50=-1.0), "p50 is -1.0, its samples give"),
        (lambda r: r["engines"][0]["cold_start"]["open"].update(rounds=[]), "length >= 1"),
        (lambda r: r["engines"][0]["cases"][0]["step"].update(per_run=4), "whole numbers of runs"),
    ],
    ids=["schema", "no schema", "missing", "unknown", "percentile", "empty", "runs"],
)
def test_a_damaged_report_is_refused(measured: Path, tmp_path: Path, change: Change, message: str) -> None:
    old = doctored(measured, tmp_path / "old.json", change)
    done = bench("--from", measured / "report.json", "--compare", old)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "old.json" in done.stderr
    assert "Traceback" not in done.stderr


def samples(seed: int, *, rounds: int = 3, runs: int = 5, level: float = 100.0) -> list[NDArray[np.float64]]:
    """Calls of processes that differ by a twentieth, each call by a hundredth."""
    rng = np.random.default_rng(seed)
    return [level * rng.normal(1, 0.05) * rng.normal(1, 0.01, runs) for _ in range(rounds)]


def judged(old: Figure, new: Figure) -> bool:
    change, noise = change_and_noise(old, new)["p50"]
    assert noise is not None
    return abs(change) > noise


def test_noise_between_processes_is_seen() -> None:
    """Taken for independent, thirty calls of three processes each seem to tell two equal reports apart."""
    pairs = [
        (figure_of("ms", samples(2 * i, runs=30)), figure_of("ms", samples(2 * i + 1, runs=30))) for i in range(60)
    ]
    assert sum(judged(*pair) for pair in pairs) <= 9
    flat = [tuple(figure_of("ms", [np.concatenate(figure.rounds)]) for figure in pair) for pair in pairs]
    assert sum(judged(*pair) for pair in flat) > 30, "within one round, the noise between rounds cannot be known"


def test_a_change_beyond_the_noise_is_found() -> None:
    found = [judged(figure_of("ms", samples(i)), figure_of("ms", samples(100 + i, level=140))) for i in range(20)]
    assert sum(found) >= 19


def test_an_improvement_is_held_against_its_own_noise() -> None:
    """A fall cannot be more than all of it; a rise that could be chance can be a hundredfold."""
    slow, fast = figure_of("ms", [[300.0, 1500.0], [310.0, 900.0]]), figure_of("ms", [[10.0, 12.0], [11.0, 13.0]])
    assert judged(slow, fast) and judged(fast, slow)


def test_the_noise_of_a_single_sample_is_not_known() -> None:
    one, two = figure_of("ms", [[10.0]]), figure_of("ms", [[12.0]])
    assert change_and_noise(one, two)["p50"] == (pytest.approx(0.2), None)


def test_steps_of_one_call_are_not_independent() -> None:
    """Twelve calls of thirty steps, two of them slow: that is two accidents, not sixty."""
    calm, accidents = [[10.0] * 360], [[10.0] * 300 + [20.0] * 60]
    by_run = [figure_of("ms", rounds, per_run=30) for rounds in (calm, accidents)]
    change, noise = change_and_noise(*by_run)["p90"]
    assert noise is not None and change == pytest.approx(1.0) and noise >= change


def test_percentiles_of_few_samples_are_not_judged(measured: Path) -> None:
    report = read_report(measured / "report.json")
    comparison = compare_reports(report, report, 0.05)
    assert {change.quantile for change in comparison.changes if change.name == "total"} == {"p50"}
    assert {change.quantile for change in comparison.changes if change.name == "step"} == {"p50", "p90"}


def test_the_page_tells_the_comparison(measured: Path, tmp_path: Path) -> None:
    new = doctored(measured, tmp_path / "new.json", slower)
    done = bench("--from", new, "--compare", measured / "report.json", "--report", tmp_path / "report")
    assert done.returncode == 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert "1 figure is worse or missing" in page
    assert "+2900.0%" in page
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == json.loads(new.read_text())
