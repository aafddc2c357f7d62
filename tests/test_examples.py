"""The pictures in examples/, the page that says whose they are, and the script that makes them."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "make_examples.py"
FILES = sorted(path.name for path in (ROOT / "examples").iterdir() if path.name != "README.md")
STYLES = ("mosaic", "strokes", "woodcut")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    return load()


def rows() -> dict[str, list[str]]:
    """Return the cells of each row of the table in examples/README.md by the file that it is about."""
    table = re.findall(r"^\| `([^`]+)` \|(.+)\|$", (ROOT / "examples" / "README.md").read_text("utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in table}


def test_importing_the_script_draws_nothing(monkeypatch: pytest.MonkeyPatch):
    for maker in ("new", "fromarray", "open"):
        monkeypatch.setattr(Image, maker, lambda *_: pytest.fail("a picture was made"))
    load()


@pytest.mark.parametrize("name", FILES)
def test_each_picture_opens_in_rgb_at_400_pixels_or_more(name: str):
    with Image.open(ROOT / "examples" / name) as picture:
        picture.load()
        assert picture.mode == "RGB"
        assert max(picture.size) >= 400


@pytest.mark.parametrize("name", FILES)
def test_each_picture_has_a_row_with_its_size_and_its_rights(name: str):
    size, what, made, rights = rows()[name]
    with Image.open(ROOT / "examples" / name) as picture:
        assert size == f"{picture.width} x {picture.height}"
    assert what and made
    assert re.search(r"CC0|public domain|Apache-2\.0", rights)


def test_the_page_lists_no_picture_that_is_not_there():
    assert sorted(rows()) == FILES


def test_the_command_makes_every_picture_that_the_page_says_it_makes(examples: ModuleType):
    made = {Path(name).stem for name, cells in rows().items() if "scripts/make_examples.py" in cells[2]}
    assert made == {*examples.PHOTOGRAPHS, *examples.STYLES}


@pytest.mark.parametrize("name", STYLES)
def test_a_style_comes_out_the_same_every_time(examples: ModuleType, name: str):
    once, again = (getattr(examples, name)(size=96) for _ in range(2))
    assert once.size == (96, 76)
    assert once.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", STYLES)
def test_a_style_leaves_no_part_of_the_picture_blank(name: str):
    with Image.open(ROOT / "examples" / f"{name}.jpg") as picture:
        grey = np.asarray(picture.convert("L"), float)
    blocks = grey[: grey.shape[0] // 48 * 48, : grey.shape[1] // 48 * 48].reshape(-1, 48, grey.shape[1] // 48, 48)
    assert blocks.std(axis=(1, 3)).min() > 3


def test_a_colour_ramp_begins_and_ends_with_its_own_colours(examples: ModuleType):
    ends = examples.ramp(("000000", "102030", "ffffff"), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(ends, [[0, 0, 0], [16, 32, 48], [255, 255, 255]])


def test_without_scikit_image_the_photographs_say_so(
    examples: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert "scikit-image, which is missing" in examples.main(tmp_path, ("cat",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"), [(["--output", "nowhere"], "nowhere"), (["--only", "dog", "--output", "."], "'dog'")]
)
def test_a_wrong_folder_or_name_is_one_sentence_and_status_2(options: list[str], says: str, tmp_path: Path):
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
