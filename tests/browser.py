"""A real headless Chromium for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["chromium", "contrast", "luminance", "needs_chromium", "show_as", "too_wide"]

FLAGS = ("--headless", "--no-sandbox", "--disable-background-networking")
"""Chromium's own: its sandbox refuses to start for root; its background requests would be counted as the page's."""

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver; .ci/run installs them"
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Run one, with what it logs and asks for recorded."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def show_as(browser: Any, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    """Set its size in pixels, and the colours that its user prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def too_wide(browser: Any) -> list[str]:
    """Return the elements that reach beyond the right edge, or have to be scrolled sideways."""
    found: list[str] = browser.execute_script(
        "return [...document.body.querySelectorAll('*')].filter(e => !e.closest('svg, .unseen'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1 "
        "&& !['inline', 'none'].includes(getComputedStyle(e).display) && !['INPUT', 'SELECT'].includes(e.tagName))"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    return found


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of ``rgb(r, g, b)``."""
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
