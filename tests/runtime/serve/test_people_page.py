"""The page in a real browser, on a real server: asked by mouse and by keyboard, seen and heard."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ...browser import chromium, contrast, luminance, needs_chromium, show_as, too_wide
from ..parity.oracle import picture
from .conftest import Server, serving

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: Any, server: Server) -> Any:
    """The page, ready; what it sends to the API is noted in ``window.sent``."""
    show_as(browser)
    browser.get(f"{server.url}/")
    until(lambda: browser.find_element("id", "field-prompt").is_displayed())
    browser.execute_script(
        "window.sent = []; const plain = window.fetch;"
        "window.fetch = (path, options) => { if (options?.body) window.sent.push(options.body);"
        "return plain(path, options); }"
    )
    return browser


def until(condition: Any, seconds: float = 60) -> Any:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def fill(page: Any, **values: object) -> None:
    for name, value in values.items():
        field = page.find_element("id", f"field-{name}")
        page.execute_script("for (let e = arguments[0]; e; e = e.parentElement) if ('open' in e) e.open = true", field)
        field.clear()
        field.send_keys(str(value))


def drawn(page: Any, count: int = 1) -> list[Any]:
    until(lambda: len(page.find_elements("css selector", "img.done")) == count)
    found: list[Any] = page.find_elements("css selector", "img.done")
    return found


def pixels(page: Any, image: Any) -> Any:
    """Return what an image of the page shows, [h, w, 3]."""
    script = (
        "const [i, done] = arguments; const c = document.createElement('canvas');"
        "c.width = i.naturalWidth; c.height = i.naturalHeight; const p = c.getContext('2d');"
        "i.decode().then(() => { p.drawImage(i, 0, 0); done(c.toDataURL()); })"
    )
    return decoded(page.execute_async_script(script, image))


def decoded(url: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def file_of(image: Image.Image, path: Path) -> str:
    image.save(path)
    return str(path)


def test_it_is_asked_by_keyboard_and_shows_what_the_api_draws(page: Any, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    asked = {"prompt": "a house & a <b>cat</b>", "num_inference_steps": 8, "seed": 7, "n": 2}
    expected = server.draw(**asked, size="72x48").json()["data"]
    assert page.switch_to.active_element.get_attribute("id") == "field-prompt"
    fill(page, **asked, width=72, height=48)
    page.switch_to.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    until(lambda: page.find_elements("css selector", "img.preview, img.done"))
    images = drawn(page, 2)
    for image, entry in zip(images, expected, strict=True):
        assert np.array_equal(pixels(page, image), decoded("," + entry["b64_json"]))
    assert [one.text for one in page.find_elements("class name", "seed")] == ["Seed 7, 72x48", "Seed 8, 72x48"]
    job = page.find_element("class name", "job")
    assert job.find_element("tag name", "h3").text == "a house & a <b>cat</b>"
    until(lambda: "denoised" in job.text and "in all" in job.text)
    until(lambda: page.execute_script("return document.getElementById('news').textContent").endswith("is done."))


def test_nothing_comes_from_elsewhere_and_nothing_goes_wrong(page: Any, server: Server) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert f"{server.url}/page/page.js" in asked
    assert all(url.startswith((server.url, "data:", "blob:", "chrome:")) for url in asked), asked
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    answer = httpx.get(f"{server.url}/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    again = httpx.get(f"{server.url}/", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{server.url}/page/page_routes.py").status_code == 404


def test_its_fields_are_the_bundles(page: Any, server: Server) -> None:
    model = httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"]
    fields = {one["name"]: one for one in httpx.get(f"{server.url}/v1/models/{model}/fields").json()["data"]}
    assert {"prompt", "n", "width", "strength", "scheduler", "mask_image"} <= set(fields)
    # SDXL's, ControlNet's, and arrays: of no use here
    assert not {"prompt_2", "original_size", "control_image", "guess_mode", "prompt_embeds"} & set(fields)
    assert (fields["width"]["minimum"], fields["width"]["maximum"], fields["width"]["step"]) == (32, 128, 8)
    assert (fields["guidance_scale"]["default"], fields["strength"]["needs"]) == (7.5, "image")
    shown = page.execute_script("return [...document.querySelectorAll('[id^=field-]')].map(e => e.id)")
    assert {f"field-{name}" for name in fields if name != "mask_image"} == {i for i in shown if "about" not in i}
    assert httpx.get(f"{server.url}/v1/models/other/fields").status_code == 404


def test_a_mask_is_painted_with_the_mouse(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    fill(page, prompt="a house", num_inference_steps=2, seed=1)
    path = file_of(picture(48, 72, 1).convert("RGB"), tmp_path / "start.png")
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.find_element("id", "field-image").send_keys(path)
    canvas = until(lambda: page.find_element("tag name", "canvas"))
    assert "Nothing is painted" in page.find_element("class name", "painted").text
    wide, high = canvas.size["width"], canvas.size["height"]
    ActionChains(page).move_to_element_with_offset(canvas, -wide // 4, 0).click_and_hold().move_by_offset(
        0, high // 4
    ).release().perform()
    until(lambda: "% of the picture is painted" in page.find_element("class name", "painted").text)
    page.find_element("id", "generate").click()
    (image,) = drawn(page)
    body = json.loads(page.execute_script("return window.sent[0]"))
    mask = decoded(body["mask_image"])
    assert mask.shape == (48, 72, 3) and set(np.unique(mask[:, 40:])) == {0}
    assert mask[24, 18].tolist() == [255] * 3 and mask[34, 18].tolist() == [255] * 3
    assert np.array_equal(decoded(body["image"]), np.asarray(picture(48, 72, 1).convert("RGB")))
    assert pixels(page, image).shape == (48, 72, 3)
    page.find_element("class name", "undo").click()
    assert "Nothing is painted" in page.find_element("class name", "painted").text


def test_a_mask_is_painted_with_the_keyboard(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.find_element("id", "field-image").send_keys(file_of(picture(48, 72, 1), tmp_path / "start.png"))
    canvas = until(lambda: page.find_element("tag name", "canvas"))
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SPACE)
    until(lambda: "% of the picture is painted" in page.find_element("class name", "painted").text)
    canvas.send_keys(Keys.CONTROL, "z")
    until(lambda: "Nothing is painted" in page.find_element("class name", "painted").text)


def test_an_image_is_started_from_another(page: Any) -> None:
    fill(page, prompt="a house", num_inference_steps=2, seed=1)
    page.find_element("id", "generate").click()
    (first,) = drawn(page)
    before = pixels(page, first)
    page.find_element("xpath", "//button[text()='Start from it']").click()
    until(lambda: page.find_element("tag name", "canvas"))
    fill(page, strength=0.5)
    page.find_element("id", "generate").click()
    drawn(page, 2)
    body = json.loads(page.execute_script("return window.sent[1]"))
    assert np.array_equal(decoded(body["image"]), before) and body["strength"] == 0.5 and "mask_image" not in body


def test_what_is_refused_is_said_at_its_field(page: Any) -> None:
    fill(page, prompt="a house", width=71)
    page.find_element("id", "generate").click()
    until(lambda: "nearest that works" in page.find_element("id", "form-error").text)
    width = page.find_element("id", "field-width")
    assert width.get_attribute("aria-invalid") == "true" and page.switch_to.active_element == width
    fill(page, width="", seed="one")
    page.find_element("id", "generate").click()
    until(lambda: "cannot be read as numbers" in page.find_element("id", "form-error").text)
    assert width.get_attribute("aria-invalid") is None


def test_cancelling_frees_the_slot(page: Any, server: Server) -> None:
    before = server.metrics().get("request_cancelled_total", 0)
    fill(page, prompt="a long one", num_inference_steps=200, n=10)
    page.find_element("id", "generate").click()
    until(lambda: "step" in page.find_element("class name", "job").text)
    page.find_element("xpath", "//button[text()='Cancel']").click()
    until(lambda: "Cancelled." in page.find_element("class name", "job").text)
    until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)
    assert server.metrics()["request_cancelled_total"] == before + 1
    page.find_element("xpath", "//button[text()='Remove']").click()
    assert page.find_element("id", "nothing").is_displayed()


def test_a_key_is_asked_for(browser: Any) -> None:
    with serving("--api-key", "secret", "--warm-up", "72x48") as guarded:
        browser.get(f"{guarded.url}/")
        until(lambda: browser.find_element("id", "key").is_displayed())
        for key, fits in (("wrong", False), ("secret", True)):
            browser.find_element("id", "key").clear()
            browser.find_element("id", "key").send_keys(key)
            browser.find_element("css selector", "#key-form button").click()
            shown = "field-prompt" if fits else "key-error"
            until(lambda shown=shown: browser.find_element("id", shown).is_displayed())
        assert not browser.find_element("id", "key-form").is_displayed()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_has_to_be_scrolled_sideways(page: Any, width: int, tmp_path: Path) -> None:
    show_as(page, width=width)
    fill(page, prompt="word " * 5 + "a" * 80, num_inference_steps=3, n=2)
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.find_element("id", "field-image").send_keys(file_of(picture(48, 72, 1), tmp_path / "start.png"))
    until(lambda: page.find_element("tag name", "canvas"))
    page.find_element("id", "generate").click()
    drawn(page, 2)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert too_wide(page) == []


def test_both_schemes_are_readable(page: Any) -> None:
    papers = []
    for scheme in ("light", "dark"):
        show_as(page, scheme=scheme)
        script = "const s = getComputedStyle(arguments[0]); return [s.color, s.backgroundColor]"
        ink, paper = page.execute_script(script, page.find_element("tag name", "body"))
        faint, _ = page.execute_script(script, page.find_element("id", "nothing"))
        on, button = page.execute_script(script, page.find_element("id", "generate"))
        error, _ = page.execute_script(script, page.find_element("id", "form-error"))
        assert contrast(ink, paper) > 7
        assert min(contrast(faint, paper), contrast(on, button), contrast(error, paper)) > 4.5
        papers.append(luminance(paper))
    assert papers[0] > 0.8 and papers[1] < 0.05


def test_it_can_be_used_without_seeing(page: Any) -> None:
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    nameless = page.execute_script(
        "return [...document.querySelectorAll('input, select, textarea')]"
        ".filter(e => !e.labels.length).concat([...document.querySelectorAll('button')]"
        ".filter(b => !b.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
    missing = page.execute_script(
        "return [...document.querySelectorAll('[aria-describedby], [aria-labelledby]')]"
        ".filter(e => !document.getElementById(e.getAttribute('aria-describedby') || "
        "e.getAttribute('aria-labelledby'))).length"
    )
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert missing == 0 and len(ids) == len(set(ids))
    headings = page.execute_script("return [...document.querySelectorAll('h1, h2')].map(h => h.tagName).join(' ')")
    assert headings == "H1 H2 H2" and page.execute_script("return document.documentElement.lang") == "en"
    small = page.execute_script(
        "return [...document.querySelectorAll('button, select, input:not([type=checkbox])')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"
    )
    assert small == []
