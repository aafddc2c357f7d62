"""Documents: what they link to and show is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = list((ROOT / "docs" / "tutorials").glob("*.py"))  # notebooks, with links in their Markdown
DOCUMENTS = TUTORIALS + sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("site-packages", "build") for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text("utf-8"))
    targets += re.findall(r'<img src="([^"]+)"', document.read_text("utf-8"))
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert not missing


def test_every_gallery_picture_is_shown():
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    pictures = [f"gallery/{path.name}" for path in (ROOT / "docs" / "gallery").iterdir()]
    assert pictures and not [picture for picture in pictures if picture not in page]
