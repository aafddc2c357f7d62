"""Files from strangers: their demands on memory and time are checked, and their texts cannot control a terminal."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
from PIL import Image
from reading import Reader

from jaxstyle.errors import InputError
from jaxstyle.images import limits
from jaxstyle.images.load import load_image
from jaxstyle.networks import hdf5, weights_io
from jaxstyle.runtime.rerun import picture_record


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
        load_image(folder / "a")
    return str(caught.value)


def test_a_small_file_that_claims_millions_of_pixels_is_refused_before_it_is_decoded(tmp_path):
    valid = zlib.compress(bytes((9000 // 8 + 1) * 9000))
    message = refusal(tmp_path, png(9000, 9000, valid))
    assert "claims 9000x9000 pixels in " in message and "byte per 50 pixels" in message
    assert "is 40000x40000 pixels, over Pillow's limit" in refusal(tmp_path, png(40000, 40000, b""))
    start = jpeg()
    at = start.index(b"\xff\xc0") + 5  # height and width
    assert "claims 9000x9000" in refusal(tmp_path, start[:at] + struct.pack(">HH", 9000, 9000) + start[at + 4 :])


def test_a_small_file_may_have_up_to_2_to_the_25_pixels_or_50_per_byte(monkeypatch):
    with Image.open(BytesIO(png(8192, 4096, b""))) as picture:
        limits.check_packing("a", picture, b"", deep=False)
        with pytest.raises(InputError, match="claims 8192x4096 pixels in 0 bytes, but over 16777216 pixels"):
            limits.check_packing("a", picture, b"", deep=True)
    with Image.open(BytesIO(jpeg())) as picture:  # 24 x 33
        monkeypatch.setattr(limits, "PACKED", 100)
        limits.check_packing("a", picture, bytes(16), deep=False)
        with pytest.raises(InputError, match="claims 24x33 pixels in 15 bytes"):
            limits.check_packing("a", picture, bytes(15), deep=False)


def test_a_mask_of_one_color_may_be_larger_than_a_photograph_of_its_file_size(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3000, 2000, zlib.compress((b"\0" + b"\xff" * 375) * 2000)))
    assert load_image(tmp_path / "a.png", size=64).rgb.min() == 1


def test_tiles_far_larger_than_their_picture_are_refused(tmp_path):
    tiled = imagecodecs.tiff_encode(np.zeros((32, 32, 3), np.uint8), tile=(2048, 2048), compression="deflate")
    assert "has tiles of [2048, 2048] pixels, far over its 32x32" in refusal(tmp_path, bytes(tiled))


def test_a_jpeg_with_more_than_100_scans_is_refused(tmp_path):
    data = jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    assert " scans, over the limit of 100" in refusal(tmp_path, data[:at] + data[at:-2] * 100 + data[-2:])


def test_messages_of_decoders_do_not_reach_stderr(tmp_path, capfd):
    data = BytesIO()
    Image.new("RGB", (32, 32)).save(data, "TIFF")
    samples = struct.pack("<HHI", 277, 3, 1)
    assert data.getvalue().count(samples + b"\3\0") == 1
    path = tmp_path / "a.tif"
    path.write_bytes(data.getvalue().replace(samples + b"\3\0", samples + b"\x11\0"))
    with pytest.raises(InputError):
        picture_record(path)  # reads the record only, and decodes no pixel
    assert capfd.readouterr() == ("", "")


def test_a_file_over_the_limit_of_bytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 100)
    assert "bytes, over the limit of 100: shrink" in refusal(tmp_path, jpeg())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no regular file"):
        load_image(tmp_path / "pipe.png")


def test_a_postscript_program_is_refused(tmp_path):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
    assert "is not a picture in a supported format" in refusal(tmp_path, program)


def test_bytes_of_a_broken_file_in_an_error_are_printable_and_short(tmp_path):
    message = refusal(tmp_path, b"P5 " + b"\x1b[31m" * 50)
    assert message.isprintable() and len(message) < len(str(tmp_path)) + 200


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot wait for a pipe")
def test_a_picture_just_below_the_limits_takes_less_than_a_gigabyte_and_5_seconds(tmp_path):
    side = int(limits.PACKED**0.5)
    (tmp_path / "a.png").write_bytes(png(side, side, zlib.compress(bytes((side // 8 + 1) * side))))
    with Reader("picture", tmp_path / "stderr") as reader:
        outcome = reader.read(tmp_path / "a.png")
    assert outcome.read and outcome.peak < 2**30 and outcome.seconds < 5


@pytest.mark.parametrize("size", [0, 2**64 - 16, 2**40], ids=["size 0", "offset 0", "beyond the end"])
def test_a_cyclic_heap_of_strings_is_refused(tmp_path, size):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names"] = ["one", "two"]
    with hdf5.opened(path, cure="replace it.") as file:
        assert hdf5.strings(file, "names") == ["one", "two"]
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16 + 2 * 24  # the free space, behind two objects
    data[at : at + 16] = struct.pack("<HHIQ", 0 if size == 0 else 9, 0, 0, size)
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"), hdf5.opened(path, cure="replace it.") as file:
        hdf5.strings(file, "names")


def test_the_origin_in_a_weights_file_is_printable(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["source"] = "https://example.org\n\x1b[31mred"
    assert weights_io.provenance(tmp_path / "a.h5") == {"source": "https://example.org  [31mred"}
