"""The page of a sweep in a browser, opened from a file."""

import shutil

import numpy as np
import pytest

from jaxstyle.images.save import save_image
from jaxstyle.runtime.sweep_report import Entry, write_report

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent: apt-get install chromium"),
]


@pytest.fixture
def page(tmp_path):
    """The opened report of three pictures, its requests, and its messages and errors."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is absent: pip install -e '.[browser]'")
    entries = []
    for i, shade in enumerate((0.2, 0.5, 0.8)):
        name = f"{i:04d}_style-weight={i}%.png"
        save_image(tmp_path / name, np.full((48, 64, 3), shade, np.float32))
        entries.append(Entry(name, f"style-weight {i}", {"style-weight": i}, {"total": 1.0}, (3.0, 2.0, 1.0), ""))
    write_report(tmp_path, entries, columns=None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, requests, messages = browser.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((tmp_path / "index.html").as_uri())
        yield page, requests, messages
        browser.close()


def test_a_click_enlarges_a_picture_and_another_click_closes_it(page):
    page, _, messages = page
    dialog = page.locator("dialog")
    assert not dialog.is_visible()
    small = page.locator("figure img").nth(1)
    small.click()
    large = dialog.locator("img")
    assert dialog.is_visible() and large.get_attribute("src") == small.evaluate("image => image.src")
    assert large.bounding_box()["width"] > 2 * small.bounding_box()["width"]
    large.click()
    assert not dialog.is_visible() and not messages


def test_pictures_and_curves_are_drawn_without_network_requests(page):
    page, requests, messages = page
    page.wait_for_load_state("networkidle")
    widths = page.locator("figure img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [64, 64, 64] and page.locator("polyline").count() == 3
    assert requests and all(url.startswith(("file:", "data:")) for url in requests) and not messages
