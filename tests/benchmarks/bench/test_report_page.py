"""The page in a real browser: one file, both schemes, a phone's width, every figure, nobody called."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sdengine.benchmarks.bench.figure import QUANTILES, Figure
from sdengine.benchmarks.bench.figure_text import number
from sdengine.benchmarks.bench.published import published_for
from sdengine.benchmarks.bench.report import LoadFigures
from sdengine.benchmarks.bench.report_page import page_of
from sdengine.benchmarks.bench.saved import read_report

from ...browser import chromium, contrast, luminance, needs_chromium, show_as, too_wide
from .runs import doctored


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def open_page(browser: Any, report: Path, *, width: int = 1280, scheme: str = "light") -> None:
    show_as(browser, width=width, scheme=scheme)
    browser.get((report / "report.html").as_uri())


@needs_chromium
def test_nobody_is_called_and_nothing_goes_wrong(browser: Any, measured: Path) -> None:
    browser.get("about:blank")
    browser.get_log("performance"), browser.get_log("browser")
    open_page(browser, measured)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert (measured / "report.html").as_uri() in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    broken = browser.execute_script("return [...document.images].filter(i => !i.naturalWidth).length")
    assert (broken, browser.execute_script("return document.images.length")) == (0, 5)
    assert (measured / "report.html").stat().st_size < 2e6


@needs_chromium
def test_every_figure_is_there(browser: Any, measured: Path) -> None:
    open_page(browser, measured)
    shown = set(browser.execute_script("return [...document.querySelectorAll('td')].map(cell => cell.textContent)"))
    report = read_report(measured / "report.json")
    figures = [figure for _, figure in report.figures() if isinstance(figure, Figure)]
    assert len(figures) == 2 * (7 + 3 + 2 * 2 + 2 * 8)
    for figure in figures:
        for quantile in QUANTILES:
            assert number(getattr(figure, quantile)) in shown
    for engine in report.engines:
        for case in engine.load:
            assert isinstance(case.measured, LoadFigures)
            for value in (case.measured.images_per_s, case.measured.p50_ms, case.measured.cores):
                assert number(value) in shown
    text = browser.execute_script("return document.body.textContent")
    assert "1 worker, 3 clients" in text
    for told in (report.bundle.sha256, report.environment.cpu.model, report.environment.packages["numpy"]):
        assert told in text
    assert "a cat & a <dog>" in text


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_has_to_be_scrolled_sideways(browser: Any, measured: Path, width: int) -> None:
    open_page(browser, measured, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert too_wide(browser) == []
    small = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('svg text')].map(t => "
        "parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a))"
    )
    assert small > 8, "text in plots must stay legible"


@needs_chromium
def test_both_schemes_are_readable(browser: Any, measured: Path) -> None:
    papers = []
    for scheme in ("light", "dark"):
        open_page(browser, measured, scheme=scheme)
        script = "const s = getComputedStyle(arguments[0]); return [s.color, s.backgroundColor, s.fill]"
        ink, paper, _ = browser.execute_script(script, browser.find_element("tag name", "body"))
        _, card, _ = browser.execute_script(script, browser.find_element("class name", "card"))
        faint = browser.execute_script(script, browser.find_element("css selector", "header p:last-of-type"))[0]
        label = browser.execute_script(script, browser.find_element("css selector", "svg text"))[2]
        assert contrast(ink, paper) > 7
        assert contrast(faint, paper) > 4.5
        assert contrast(label, card) > 4.5
        papers.append(luminance(paper))
    assert papers[0] > 0.8 and papers[1] < 0.05


@needs_chromium
def test_it_can_be_read_without_seeing(browser: Any, measured: Path) -> None:
    open_page(browser, measured)
    lacking = browser.execute_script(
        "return [...document.querySelectorAll('img')].filter(i => !i.alt).length"
        " + [...document.querySelectorAll('svg')].filter(s => !s.closest('[role=img][aria-label]')).length"
        " + [...document.querySelectorAll('table')].filter(t => !t.caption || !t.querySelector('thead th[scope=col]')"
        " || !t.querySelector('tbody th[scope]')).length"
    )
    assert lacking == 0
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2')].map(h => h.tagName).join(' ')")
    assert levels.startswith("H1 H2") and levels.count("H1") == 1
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_published_figures_stand_beside_our_own(measured: Path, tmp_path: Path) -> None:
    """A report of the full SDXL takes a GPU; one that only says so shows what the page would."""

    def pretend(report: dict[str, Any]) -> None:
        found = published_for("sdxl", 2_567_463_684, [((1024, 1024), 30, 1)], guided=True)
        assert isinstance(found, list)
        report["published"] = [
            {name: getattr(figure, name) for name in figure.__struct_fields__} | {"width": 48, "height": 40, "steps": 2}
            for figure in found
        ]

    report = read_report(doctored(measured, tmp_path / "new.json", pretend))
    page = page_of(report)
    for told in ("NVIDIA A100", number(2742), "https://huggingface.co/stabilityai/", "here: onnxruntime, batch 1"):
        assert told in page


def test_what_is_absent_has_its_reason_on_the_page(measured: Path, tmp_path: Path) -> None:
    def lose(report: dict[str, Any]) -> None:
        first, second = report["engines"]
        first["cases"][0]["step"] = {"kind": "absent", "reason": "one launch"}
        first["memory"]["peak"] = {"kind": "absent", "reason": "nobody counts"}
        second["size_changes"] = {"kind": "absent", "reason": "one size"}
        report["reference"] = second["cases"][1]["difference"] = {"kind": "absent", "reason": "no torch"}

    page = page_of(read_report(doctored(measured, tmp_path / "new.json", lose)))
    for reason in ("one launch", "nobody counts", "one size", "no torch", "not compared with float32 torch"):
        assert reason in page
