"""The pictures in examples/, their list in its README, and the script that makes them."""

import importlib.util
import re
import runpy
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
    """Return the cells of each row of the table in examples/README.md, by file."""
    table = re.findall(r"^\| `([^`]+)` \|(.+)\|$", (ROOT / "examples" / "README.md").read_text("utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in table}


def test_importing_the_script_draws_nothing(monkeypatch: pytest.MonkeyPatch):
    for maker in ("new", "fromarray", "open"):
        monkeypatch.setattr(Image, maker, lambda *_: pytest.fail("the script draws at import"))
    load()


def test_every_example_is_rgb_of_400_pixels_or_more_and_listed_with_its_size_and_rights():
    assert sorted(rows()) == FILES
    for name in FILES:
        size, what, made, rights = rows()[name]
        with Image.open(ROOT / "examples" / name) as picture:
            picture.load()
            assert picture.mode == "RGB" and max(picture.size) >= 400, name
            assert size == f"{picture.width} x {picture.height}"
        assert what and made
        assert re.search(r"CC0|public domain|Apache-2\.0", rights), name


def test_the_script_makes_the_pictures_that_are_listed_as_made_by_it(examples: ModuleType):
    made = {Path(name).stem for name, cells in rows().items() if "scripts/make_examples.py" in cells[2]}
    assert made == {*examples.PHOTOGRAPHS, *examples.STYLES}


def test_every_style_is_deterministic(examples: ModuleType):
    for name in STYLES:
        once, again = (getattr(examples, name)(size=60) for _ in range(2))
        assert once.size == (60, 48) and once.tobytes() == again.tobytes(), name


def test_no_block_of_a_style_is_blank():
    for name in STYLES:
        with Image.open(ROOT / "examples" / f"{name}.jpg") as picture:
            grey = np.asarray(picture.convert("L"), float)
        columns = grey.shape[1] // 48
        blocks = grey[: grey.shape[0] // 48 * 48, : columns * 48].reshape(-1, 48, columns, 48)
        assert blocks.std(axis=(1, 3)).min() > 3, name


def test_a_colour_ramp_interpolates_between_its_colours(examples: ModuleType):
    actual = examples.ramp(("000000", "102030", "ffffff"), np.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_array_equal(actual, [[0, 0, 0], [8, 16, 24], [16, 32, 48], [255, 255, 255]])


def test_photographs_without_scikit_image_are_an_error(
    examples: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert "scikit-image" in examples.main(tmp_path, ("cat",))
    assert not list(tmp_path.iterdir())


def test_a_wrong_folder_or_name_exits_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    for options, expected in [(["--output", "nowhere"], "nowhere"), (["--only", "dog", "--output", "."], "'dog'")]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        out, err = capsys.readouterr()
        assert caught.value.code == 2 and out == "" and err.startswith(expected) and err.count("\n") == 1
