"""Undamaged files: small pictures, HDF5 and `.safetensors` files of tiny networks, statistics, records of runs."""

import itertools
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from jaxstyle.images import save
from jaxstyle.losses import statistics_io
from jaxstyle.losses.moments import Moments
from jaxstyle.losses.objective import Objective
from jaxstyle.losses.wasserstein import LEVELS, Quantiles
from jaxstyle.networks import weights_io
from jaxstyle.networks.random_init import random_params
from jaxstyle.networks.state_dict import FEATURES
from jaxstyle.networks.vgg import Params
from jaxstyle.runtime import record
from jaxstyle.runtime.options import StylizeOptions
from jaxstyle.runtime.sweep_report import Entry

HEIGHT, WIDTH = 24, 33
WIDTHS = ((2, 3), (4, 2), (3, 2, 4, 2), (3, 2, 2, 3), (2, 3, 2, 4))
NUMBERS = (1, 2, 3, 4, 9, 12, 16, 24, 96, 128, 512)  # sizes in the HDF5 files
SHAPES = {"relu1_1": 2, "relu2_1": 4}  # channels
STYLE = dict.fromkeys(SHAPES, 1.0)
OBJECTIVES = {
    "moments": Objective(content={}, style=STYLE),
    "quantiles": Objective(content={}, style=STYLE, statistic="sliced"),
}


def pictures() -> dict[str, bytes]:
    """Return picture files of 33x24 pixels by format and variant."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    rgb = np.rint(255 * np.stack([x, y, 1 - x], -1)).astype(np.uint8)
    rgba = np.dstack([rgb, rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)])
    deep = rng.integers(0, 2**16, (HEIGHT, WIDTH, 4), np.uint16)
    deep_rgb = np.ascontiguousarray(deep[..., :3])
    colour, exif, text = Image.fromarray(rgb), Image.Exif(), PngInfo()
    exif[0x0112] = 6  # orientation
    text.add_text("Comment", "of a picture")
    text.add_itxt("Title", "text " * 30, zip=True)
    marked = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}

    def pillow(image: Image.Image | np.ndarray, container: str, **options) -> bytes:
        buffer = BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, container, **options)
        return buffer.getvalue()

    return {
        "png": pillow(rgb, "PNG"),
        "png grey": pillow(rgb[..., 0], "PNG", icc_profile=imagecodecs.cms_profile("gray", gamma=1.8)),
        "png palette": pillow(colour.convert("P"), "PNG", transparency=bytes([0, 51, 255])),
        "png bits": pillow(colour.convert("1"), "PNG"),
        "png alpha, marked": pillow(rgba, "PNG", pnginfo=text, **marked),
        "png animated": pillow(colour, "PNG", save_all=True, append_images=[colour.rotate(9)]),
        "png interlaced": _interlaced(rgb),
        "png 16": bytes(imagecodecs.png_encode(deep_rgb)),
        "png 16 alpha": bytes(imagecodecs.png_encode(deep)),
        "png 16 grey": pillow(deep[..., 0], "PNG"),
        "jpeg": pillow(rgb, "JPEG"),
        "jpeg marked": pillow(rgb, "JPEG", comment="of a picture", **marked),
        "jpeg progressive": pillow(rgb, "JPEG", progressive=True),
        "jpeg cmyk": pillow(colour.convert("CMYK"), "JPEG"),
        "jpeg grey": pillow(rgb[..., 0], "JPEG"),
        "webp": pillow(rgb, "WEBP"),
        "webp alpha, marked": pillow(rgba, "WEBP", **marked),
        "webp lossless": pillow(rgb, "WEBP", lossless=True),
        "webp animated": pillow(colour, "WEBP", save_all=True, append_images=[colour.rotate(9)]),
        "tiff": pillow(rgb, "TIFF", **marked),
        "tiff deflate": pillow(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff lzw": pillow(rgba, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": pillow(rgb, "TIFF", compression="jpeg"),
        "tiff fax": pillow(colour.convert("1"), "TIFF", compression="group4"),
        "tiff float": pillow((rgb[..., 0] / 255).astype(np.float32), "TIFF"),
        "tiff 16": _tiff(deep_rgb),
        "tiff 16 big-endian": _tiff(deep_rgb, byteorder=">"),
        "tiff 16 deflate alpha": _tiff(deep, compression="deflate", predictor=True, extrasample="unassalpha"),
        "tiff 16 lzw": _tiff(deep_rgb, compression="lzw"),
        "tiff 16 tiled": _tiff(deep_rgb, tile=(16, 16)),
        "tiff 16 planes": _tiff(np.ascontiguousarray(np.moveaxis(deep_rgb, -1, 0)), planarconfig="separate"),
        "tiff 16 grey": pillow(deep[..., 0], "TIFF"),
        "gif": pillow(rgb, "GIF", transparency=0),
        "gif animated": pillow(colour, "GIF", save_all=True, append_images=[colour.rotate(9)]),
        "bmp": pillow(rgb, "BMP"),
        "bmp palette": pillow(colour.convert("P"), "BMP"),
        "pgm": pillow(rgb[..., 0], "PPM"),
        "pgm 16": b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + deep[..., 0].astype(">u2").tobytes(),
        "ppm text": b"P3\n# of a picture\n%d %d\n255\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % v for v in rgb.ravel()),
        "avif": pillow(rgb, "AVIF", exif=exif),
        "jpeg 2000": pillow(rgb, "JPEG2000"),
    }


def _tiff(pixels: np.ndarray, **options) -> bytes:
    return bytes(imagecodecs.tiff_encode(pixels, photometric="rgb", **options))


def _interlaced(rgb: np.ndarray) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, right in passes for row in rgb[top::down, left::right])
    packed = (
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
        for kind, payload in {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def hdf5_files(folder: Path) -> dict[str, bytes]:
    """Return weights in both layouts and statistics of both kinds; a file is written to `folder` meanwhile."""
    params = random_params(widths=WIDTHS, seed=1)
    path, rng = folder / "sound.h5", np.random.default_rng(0)
    origin = {"source": "https://example.org/a", "checksum": "md5:12", "licence": "CC BY"}
    weights_io.write(path, params, **origin)
    result = {"own": path.read_bytes()}
    for libver in ("earliest", "latest"):
        _write_keras(path, params, libver)
        result[f"keras, {libver}"] = path.read_bytes()
    with h5py.File(path, "w") as file:
        for layer, parts in params.items():
            for part, values in parts.items():
                file.create_dataset(f"{layer}/{part}", data=values, chunks=True)
    result["own, in pieces"] = path.read_bytes()
    for name, objective in OBJECTIVES.items():
        kind = Moments if name == "moments" else Quantiles
        summary: dict[str, Any] = {}
        for layer, n in SHAPES.items():
            shapes = [(n,), (n, n)] if kind is Moments else [(n, n - 1), (n - 1, LEVELS)]
            arrays: list[Any] = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
            summary[layer] = kind(*arrays)
        statistics_io.write(path, {128: summary, 512: summary}, params=params, objective=objective, pictures=["a.jpg"])
        result[name] = path.read_bytes()
    return result


def _write_keras(path: Path, params: Params, libver: str) -> None:
    with h5py.File(path, "w", libver=libver) as file:
        layers = {name: f"block{name[4]}_conv{name[6]}" for name in params}
        file.attrs["layer_names"] = np.bytes_(["input_1", *layers.values()])
        file.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        for name, layer in layers.items():
            group = file.create_group(layer)
            pair = [f"{layer}/kernel:0", f"{layer}/bias:0"]
            group.attrs["weight_names"] = np.bytes_(pair) if libver == "earliest" else pair
            group[pair[0]], group[pair[1]] = params[name]["kernel"], params[name]["bias"]


def state_dict(prefix: str = "features.", indices: Sequence[int] = FEATURES["VGG-19"]) -> dict[str, np.ndarray]:
    """Return a narrow network in the layout of PyTorch, with a fully connected layer."""
    rng, channels, result = np.random.default_rng(0), 3, {}
    for index, width in zip(indices, itertools.chain(*WIDTHS), strict=False):
        result[f"{prefix}{index}.weight"] = rng.standard_normal((width, channels, 3, 3)).astype("f4")
        result[f"{prefix}{index}.bias"] = rng.standard_normal(width).astype("f4")
        channels = width
    return result | {"classifier.0.weight": np.zeros((2, 4), "f4"), "classifier.0.bias": np.zeros(2, "f4")}


def safetensors(path: Path, tensors: Mapping[str, np.ndarray], **changes: Any) -> Path:
    """Write a file by the specification of the format; `changes` replace parts of the first entry."""
    kinds, entries, data = {"f4": "F32", "f2": "F16", "f8": "F64", "i4": "I32", "u2": "BF16"}, {}, b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        entries[name] = {"dtype": kinds[array.dtype.str[1:]], "shape": array.shape, "data_offsets": offsets}
        data += array.tobytes()
    entries[next(iter(entries))] |= changes
    header = json.dumps({"__metadata__": {"format": "pt"}} | entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def safetensors_files(folder: Path) -> dict[str, bytes]:
    """Return a narrow network with each type of floats; a file is written to `folder` meanwhile."""
    single, path = state_dict(), folder / "sound.safetensors"
    upper = {name: (array.view("<u4") >> 16).astype("<u2") for name, array in single.items()}  # of bfloat16
    kinds = {kind: {name: array.astype(kind) for name, array in single.items()} for kind in ("f2", "f4", "f8")}
    return {kind: safetensors(path, tensors).read_bytes() for kind, tensors in (kinds | {"bf16": upper}).items()}


def records() -> dict[str, bytes]:
    """Return the record of a run as JSON, in the entry of a sweep and in a picture of each output format."""
    inputs: dict[Path, int] = {}
    options = {"content": Path("content.png"), "styles": (Path("style.png"),), **vars(StylizeOptions())}
    run = record.RunRecord(
        command="stylize",
        options=record.plain(options, paths=inputs),
        inputs=tuple(record.Source(path.name, "0" * 64) for path in inputs),
        network=record.Weights("vgg19", "vgg19.h5", "0" * 64),
        settings={"objective": {"name": "Objective", "statistic": "gram"}, "scales": None},
        weights={"style/relu1_1": 1.0, "tv": 0.5},
        versions=record.versions(),
        device="2 x processor",
        steps=3,
        history={"total": (2.5, 1.5)},
    )
    text = record.text(run)
    result = {"by itself": text.encode(), "with line breaks": record.text(run, indent=2).encode()}
    entry = Entry("out.png", "seed 1", {"seed": 1}, {"total": 1.5}, (2.5, 1.5), "0" * 64, run)
    result["in an entry"] = json.dumps(record.plain(entry, paths={})).encode()
    for container in sorted(set(save.FORMATS.values())):
        result[container] = _described(container, 8, text)
    return result | {"TIFF 16": _described("TIFF", 16, text)}


def _described(container: str, bits: int, text: str) -> bytes:
    file = BytesIO()
    save.write(file, save.Levels(np.zeros((16, 16, 3), np.float32), bits=bits), container, description=text)
    return file.getvalue()
