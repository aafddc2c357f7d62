"""The documents as a site: what it is made from, and, where it is built, each of its pages in a browser."""

import functools
import http.server
import pkgutil
import re
import shutil
import threading
from pathlib import Path

import pytest

import jaxstyle

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
CHROMIUM = shutil.which("chromium")
FOUND_BUT_NOT_SHOWN = {"by_leader", "cli", "encoding", "encoding_large", "image_file", "image_opening", "levels"}
FOUND_BUT_NOT_SHOWN |= {"orientation", "__main__"}  # behind `image`, or the command line


def test_every_room_has_one_place_in_the_reference():
    shown = [name for page in (ROOT / "docs" / "api").glob("*.md") for name in shown_on(page)]
    rooms = {module.name for module in pkgutil.iter_modules(jaxstyle.__path__)}
    assert sorted(shown) == sorted(rooms - FOUND_BUT_NOT_SHOWN)


def test_the_overview_names_every_page_and_room_and_public_name():
    overview = (ROOT / "docs" / "api" / "index.md").read_text("utf-8")
    assert not [name for name in jaxstyle.__all__ if f"| [{name}](" not in overview]
    for page in (ROOT / "docs" / "api").glob("*.md"):
        if rooms := shown_on(page):
            assert f"({page.name}) | {', '.join(f'`{room}`' for room in rooms)} |" in overview


def shown_on(page: Path) -> list[str]:
    return re.findall(r"^::: jaxstyle\.(\w+)$", page.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_notebook_whose_cells_compile(tutorial: Path):
    """The build of the site runs them."""
    text = tutorial.read_text("utf-8")
    assert text.startswith("# ---\n# jupyter:") and text.count("\n# %%\n") >= 5
    assert compile(text, tutorial.name, "exec")


@pytest.fixture(scope="module")
def browser():
    """A browser, the address of the site, and all pages of it; what it loads from elsewhere fails, as offline."""
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
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def opened(browser):
    """Open a page of the site; return it, and a list of what went wrong on it or was asked of elsewhere."""
    launched, address = browser
    context = launched.new_context()

    def open_page(name: str):
        page, wrong = context.new_page(), []
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("response", lambda got: wrong.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
        page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        return page, wrong

    yield open_page
    context.close()


@pytest.mark.slow
def test_every_page_opens_without_a_complaint_and_asks_for_nothing_elsewhere(opened):
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


@pytest.mark.slow
def test_formulas_are_drawn(opened):
    page, wrong = opened("method.html")
    sizes = [math.bounding_box() for math in page.locator("article math").all()]
    assert len(sizes) > 30 and all(size["width"] > 4 and size["height"] > 6 for size in sizes) and not wrong
    assert page.locator("article math mfrac").count() > 10 and not page.locator("article merror").count()


@pytest.mark.slow
def test_tutorials_show_what_they_print_and_draw(opened):
    for tutorial in TUTORIALS:
        page, _ = opened(f"tutorials/{tutorial.stem}.html")
        widths = page.locator("article img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) >= 3 and all(width >= 256 for width in widths)


@pytest.mark.slow
def test_the_search_finds_a_function(opened):
    page, wrong = opened("index.html")
    page.locator("input.md-search__input").first.click()
    page.keyboard.type("squared_distance")
    found = page.locator(".md-search-result__link").first
    found.wait_for()
    assert "loss.html" in found.get_attribute("href") and not wrong
