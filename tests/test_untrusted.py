"""Files from strangers: nothing in them is run, and what they ask for is checked before it is given."""

import ast
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import specimens
from PIL import Image
from reading import Reader

from jaxstyle import hdf5, image_limits, weights_file
from jaxstyle.errors import InputError
from jaxstyle.image import load

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("jaxstyle", "scripts") for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "__import__", "np.load", "numpy.load", "jnp.load", "yaml.load", "pd.read_pickle"}


def unsafe(source: str) -> list[str]:
    """Return what in a program would run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        found += [f"import {name}" for name in names if name in MODULES]
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            call = ast.unparse(node.func)
            bare = call == "torch.load" and keywords.get("weights_only") != "True"
            if call in CALLS or bare or keywords.get("allow_pickle", "False") != "False":
                found.append(call)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_holds(path):
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import joblib.memory",
        "np.load('a.npy')",
        "read(x, allow_pickle=True)",
        "eval('1')",
        "exec(code)",
        "yaml.load(text)",
        "torch.load('a.pt')",
    ],
)
def test_what_would_run_a_file_is_found(source):
    assert len(unsafe(f"def f():\n    {source}")) == 1


def png(width: int, height: int, rows: bytes) -> bytes:
    """Return a PNG of one bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": rows, b"IEND": b""}.items()
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def jpeg(**options) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (24, 33)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def refusal(folder: Path, data: bytes) -> str:
    (folder / "a").write_bytes(data)
    with pytest.raises(InputError) as caught:
        load(folder / "a")
    return str(caught.value)


def test_a_few_bytes_that_claim_millions_of_pixels_are_refused_before_they_are_unpacked(tmp_path):
    whole = zlib.compress(bytes((9000 // 8 + 1) * 9000))  # as sound as it is small
    said = refusal(tmp_path, png(9000, 9000, whole))
    assert "claims 9000x9000 pixels in " in said and "pixels must come with a byte for each 50: shrink it first" in said
    assert "is 40000x40000 pixels, over Pillow's limit" in refusal(tmp_path, png(40000, 40000, b""))
    started = jpeg()
    at = started.index(b"\xff\xc0") + 5  # height and width
    assert "claims 9000x9000" in refusal(tmp_path, started[:at] + struct.pack(">HH", 9000, 9000) + started[at + 4 :])


def test_a_mask_of_one_colour_may_be_as_large_as_a_photograph(tmp_path):
    (tmp_path / "a.png").write_bytes(png(6000, 4000, zlib.compress((b"\0" + b"\xff" * 750) * 4000)))
    assert load(tmp_path / "a.png", size=64).rgb.min() == 1


def test_a_photograph_is_believed_beyond_what_any_file_is(monkeypatch, tmp_path):
    monkeypatch.setattr(image_limits, "PACKED", 100)
    (tmp_path / "a.jpg").write_bytes(jpeg())
    assert load(tmp_path / "a.jpg").rgb.shape == (33, 24, 3)


def test_tiles_far_larger_than_their_picture_are_refused(tmp_path):
    tiled = imagecodecs.tiff_encode(np.zeros((32, 32, 3), np.uint8), tile=(2048, 2048), compression="deflate")
    assert "has tiles of [2048, 2048] pixels, far over its own 32x32" in refusal(tmp_path, bytes(tiled))


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused(tmp_path):
    whole = jpeg(progressive=True)
    at = whole.rindex(b"\xff\xda")
    assert "goes over its pixels 1" in refusal(tmp_path, whole[:at] + whole[at:-2] * 100 + whole[-2:])


def test_what_a_library_says_of_a_picture_does_not_reach_stderr(tmp_path):
    data = BytesIO()
    Image.new("RGB", (32, 32)).save(data, "TIFF")
    samples = struct.pack("<HHI", 277, 3, 1)
    assert data.getvalue().count(samples + b"\3\0") == 1
    (tmp_path / "a.tif").write_bytes(data.getvalue().replace(samples + b"\3\0", samples + b"\x11\0"))
    (tmp_path / "stderr").touch()
    with Reader("json", tmp_path / "stderr") as reader:  # asks for the record only, and decodes no pixel
        assert reader.read(tmp_path / "a.tif").error == "InputError"
    assert (tmp_path / "stderr").read_text() == ""


def test_a_file_over_the_limit_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_limits, "MOST_BYTES", 100)
    assert "bytes, over the limit of 100: shrink" in refusal(tmp_path, jpeg())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no regular file"):
        load(tmp_path / "pipe.png")


def test_a_program_in_postscript_is_no_picture(tmp_path):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
    assert "is not a picture of a kind that is read" in refusal(tmp_path, program)


def test_text_of_a_broken_file_cannot_fill_or_steer_the_terminal(tmp_path):
    message = refusal(tmp_path, b"P5 " + b"\x1b[31m" * 50)
    assert message.isprintable() and len(message) < len(str(tmp_path)) + 200


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot wait for a pipe")
def test_a_picture_just_below_the_limits_takes_less_than_a_gigabyte_and_5_seconds(tmp_path):
    side = int(image_limits.PACKED**0.5)
    (tmp_path / "a.png").write_bytes(png(side, side, zlib.compress(bytes((side // 8 + 1) * side))))
    with Reader("picture", tmp_path / "stderr") as reader:
        outcome = reader.read(tmp_path / "a.png")
    assert outcome.read and outcome.peak < 2**30 and outcome.seconds < 5


def test_compressed_weights_are_refused_since_a_piece_of_them_could_unpack_to_any_size(tmp_path):
    (tmp_path / "a.h5").write_bytes(specimens.hdf5_files(tmp_path)["own"])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["conv5_4/bias"]
        file.create_dataset("conv5_4/bias", data=np.zeros(4, "f4"), chunks=(4,), compression="gzip")
    with pytest.raises(InputError, match=r"a\.h5 keeps conv5_4 compressed, which is not read: .*\.$"):
        weights_file.read(tmp_path / "a.h5")


@pytest.mark.parametrize("size", [0, 2**64 - 16, 2**40], ids=["no step", "a step of zero", "beyond the end"])
def test_a_heap_of_strings_that_goes_in_circles_is_refused(tmp_path, size):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names"] = ["one", "two"]
    with hdf5.opened(path) as file:
        assert hdf5.strings(file, "names") == ["one", "two"]
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16 + 2 * 24  # what is left over, behind two objects
    data[at : at + 16] = struct.pack("<HHIQ", 0 if size == 0 else 9, 0, 0, size)
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"), hdf5.opened(path) as file:
        hdf5.strings(file, "names")


def test_what_a_file_says_of_its_origin_cannot_steer_the_terminal(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["source"] = "https://example.org\n\x1b[31mred"
    assert weights_file.provenance(tmp_path / "a.h5") == {"source": "https://example.org  [31mred"}
