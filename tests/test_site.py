"""The pages of the built documentation in a browser: run `mkdocs build --strict` first."""

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    """A browser, and the address at which the site is served."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: pip install -e '.[docs]' and mkdocs build --strict")
    if CHROMIUM is None:
        pytest.skip("Chromium is absent: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is absent: pip install -e '.[browser]'")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched, f"http://127.0.0.1:{server.server_port}"
        launched.close()
    server.shutdown()
    server.server_close()
    thread.join()


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def opened(browser):
    """Return a function that opens a page of the site and returns it with its errors and requests to other hosts."""
    launched, address = browser
    context = launched.new_context()

    def open_page(name: str):
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("response", lambda got: wrong.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
        page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        return page, wrong

    yield open_page
    context.close()


def test_every_page_opens_without_errors_or_requests_to_other_hosts(opened):
    names = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if path.name != "404.html")
    assert len(names) > 30
    for name in names:
        page, wrong = opened(name)
        pictures = page.locator("article img")
        widths = pictures.evaluate_all("images => images.map(image => image.loading == 'lazy' || image.naturalWidth)")
        assert not wrong and all(widths), (name, wrong)
        left = re.search(r":math:|\\frac|\\sum|\$\$|Traceback", page.locator("article").evaluate(PROSE))
        assert left is None, (name, left)
        page.close()


PROSE = """article => {
    const copy = article.cloneNode(true);
    copy.querySelectorAll('pre, code, math, details').forEach(node => node.remove());
    return copy.textContent;
}"""


def test_formulas_are_drawn(opened):
    page, wrong = opened("method.html")
    sizes = [math.bounding_box() for math in page.locator("article math").all()]
    assert len(sizes) > 30 and all(size["width"] > 4 and size["height"] > 6 for size in sizes) and not wrong
    assert page.locator("article math mfrac").count() > 10 and not page.locator("article merror").count()


def test_tutorials_show_the_pictures_that_they_draw(opened):
    for tutorial in TUTORIALS:
        page, _ = opened(f"tutorials/{tutorial.stem}.html")
        widths = page.locator("article img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) >= 3 and all(width >= 256 for width in widths)


def test_the_search_finds_a_function(opened):
    page, wrong = opened("index.html")
    page.locator("input.md-search__input").first.click()
    ready = page.locator(".md-search-result__meta").filter(has_text="Type to start")  # the index is loaded
    ready.wait_for(state="attached")
    page.keyboard.type("squared_distance")
    actual = page.locator(".md-search-result__link").first
    actual.wait_for()
    assert "losses.html" in actual.get_attribute("href") and not wrong
