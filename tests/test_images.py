"""Image files as they come: every odd kind is read right or refused by name."""

import io
import logging
import os
import re
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ttlkit import files
from ttlkit.data import decoding, image_files, photos, tensors


def _png(path, width, height, depth, kind, pixels=b"", clear=b"", packed=b""):
    """A PNG written by hand: Pillow writes neither 16-bit RGB nor headers that lie; `clear` is the tRNS chunk."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [chunk(b"tRNS", clear)] if clear else []
    parts += [chunk(b"IDAT", packed or zlib.compress(pixels)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def _gradient(height=20, width=30):
    rows, columns = np.mgrid[:height, :width]
    return np.stack((rows * 8, columns * 8, rows * 4 + columns * 4), axis=-1).astype(np.uint8)


@pytest.fixture
def jpeg(tmp_path):
    Image.fromarray(_gradient(64, 96)).save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey16.png")
    assert image_files.load_image_u8(tmp_path / "grey16.png").tolist() == [[[n] * 3 for n in (0, 1, 128, 255)]]
    Image.fromarray(levels).save(tmp_path / "grey16.tif")
    assert image_files.load_image_u8(tmp_path / "grey16.tif")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_rgb(tmp_path):
    pixels = b"\x00" + struct.pack(">6H", 0, 32896, 65535, 257, 51400, 25700)
    path = _png(tmp_path / "rgb16.png", 2, 1, depth=16, kind=2, pixels=pixels)
    assert image_files.load_image_u8(path).tolist() == [[[0, 128, 255], [1, 200, 100]]]


def test_float_tiff_in_unit_range(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "float.tif")
    assert image_files.load_image_u8(tmp_path / "float.tif")[0, :, 1].tolist() == [0, 128, 255]


def test_grey_is_expanded(tmp_path):
    Image.fromarray(_gradient()[..., 0]).save(tmp_path / "grey.png")
    loaded = image_files.load_image_u8(tmp_path / "grey.png")
    assert np.array_equal(loaded, np.repeat(_gradient()[..., :1], 3, axis=2))
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert image_files.load_image_u8(tmp_path / "bits.png").tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(("mode", "colour"), [("LA", (100,)), ("RGBA", (200, 100, 0))])
def test_alpha_is_laid_over_white(tmp_path, mode, colour):
    picture = Image.new(mode, (3, 1))
    for column, alpha in enumerate((0, 51, 255)):
        picture.putpixel((column, 0), (*colour, alpha))
    picture.save(tmp_path / "alpha.png")
    loaded = image_files.load_image_u8(tmp_path / "alpha.png").astype(int)[0]
    full = np.array(colour if len(colour) == 3 else colour * 3)
    assert loaded[0].tolist() == [255, 255, 255]
    assert np.abs(loaded[1] - (255 * 0.8 + full * 0.2)).max() <= 1
    assert loaded[2].tolist() == full.tolist()


def test_palette_with_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "palette.png", transparency=1)
    loaded = image_files.load_image_u8(tmp_path / "palette.png")
    assert loaded.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red, green, blue = image_files.load_image_u8(tmp_path / "cmyk.jpg")[8, 8].astype(int)
    assert red > 245 and green < 10 and blue < 10


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "lzw.tif", "a.webp"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # what stands at top left, top right, bottom left, bottom right, by the EXIF standard
    list(enumerate(["abcd", "badc", "dcba", "cdab", "acbd", "cadb", "dbca", "bdac"], 1)),
)
def test_exif_orientation_is_applied(tmp_path, name, orientation, corners):
    colours = {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200), "d": (200, 200, 30)}
    stored = np.array([[colours["a"], colours["b"]], [colours["c"], colours["d"]]], np.uint8)
    stored = stored.repeat(16, axis=0).repeat(32, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lzw.tif": {"compression": "tiff_lzw"}, "a.webp": {"lossless": True}}.get(name, {"quality": 95})
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
    loaded = image_files.load_image_u8(tmp_path / name)
    assert loaded.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    seen = [loaded[4, 4], loaded[4, -5], loaded[-5, 4], loaded[-5, -5]]
    np.testing.assert_allclose(seen, [colours[c] for c in corners], atol=6)
    assert photos.load_photo(tmp_path / name).orientation == orientation, "as the file says"


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_means_nothing_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_gradient()).save(tmp_path / "odd.png", exif=exif)
    assert np.array_equal(image_files.load_image_u8(tmp_path / "odd.png"), _gradient())
    assert photos.load_photo(tmp_path / "odd.png").orientation == 1


def test_a_damaged_exif_block_costs_nothing_but_the_orientation(tmp_path):
    Image.fromarray(_gradient()).save(tmp_path / "plain.jpg", quality=95)
    Image.fromarray(_gradient()).save(tmp_path / "odd.jpg", quality=95, exif=b"Exif\x00\x00nonsense, no TIFF header")
    assert np.array_equal(
        image_files.load_image_u8(tmp_path / "odd.jpg"), image_files.load_image_u8(tmp_path / "plain.jpg")
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_either_byte_order(tmp_path, order):
    levels = np.array([[0, 257, 32896, 65535]])
    for kind in (np.uint16, np.int32):
        named = [(281, 3, 1, 65535, True)]  # MaxSampleValue: what is white in 32 bits
        tifffile.imwrite(tmp_path / "a.tif", levels.astype(kind), byteorder=order, extratags=named)
        assert image_files.load_image_u8(tmp_path / "a.tif")[0, :, 2].tolist() == [0, 1, 128, 255]
    colour = np.repeat(levels[..., None], 3, axis=2).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", colour, byteorder=order, photometric="rgb")
    assert image_files.load_image_u8(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 1, 128, 255]


LAYOUTS = [
    dict(zip(("byteorder", "compression", "tile", "planarconfig", "bigtiff"), row, strict=True))
    for row in product("<>", (None, "zlib"), (None, (16, 16)), ("contig", "separate"), (False, True))
    if row[0] + str(row[4]) != ">True"  # which is refused
]


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4"])
def test_a_tiff_says_to_us_what_it_says_to_tifffile(tmp_path, kind):
    """Grey, RGB and RGBA in every layout, each number that tifffile reads; signed and longer numbers in grey only."""
    most = np.iinfo(kind).max
    for channels, layout in product((1, 3, 4) if kind in ("u1", "u2") else (1,), LAYOUTS):
        if kind == "u4" and layout["byteorder"] == ">":  # which Pillow does not know
            continue
        numbers = np.random.default_rng(0).integers(0, most, (21, 37, channels), kind, endpoint=True)
        stored = np.moveaxis(numbers, 2, 0) if layout["planarconfig"] == "separate" else numbers
        options = {"photometric": "minisblack", "planarconfig": None} if channels == 1 else {"photometric": "rgb"}
        stored = numbers[..., 0] if channels == 1 else stored
        clear = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        tifffile.imwrite(tmp_path / "a.tif", stored, rowsperstrip=8, **{**layout, **options, **clear})
        assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), stored)
        photo = photos.load_photo(tmp_path / "a.tif")
        found = photo.pixels[..., :channels] if photo.alpha is None else np.dstack((photo.pixels, photo.alpha))
        deep = np.iinfo("u1" if kind == "u1" else "u2")
        assert found.dtype == deep.dtype and found.shape == numbers.shape
        assert np.abs(found - numbers * (deep.max / most)).max() <= 0.5, layout


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_in_planes_that_is_cut_is_refused(tmp_path, compression):
    numbers = np.random.default_rng(0).integers(0, 65536, (3, 21, 37), np.uint16)
    options = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 8}
    tifffile.imwrite(tmp_path / "a.tif", numbers, compression=compression, **options)
    data = (tmp_path / "a.tif").read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "a.tif").write_bytes(data[:length])
        with pytest.raises(image_files.ImageError, match=r"a\.tif: "):
            image_files.load_image_u8(tmp_path / "a.tif")


@pytest.mark.parametrize("planes", [False, True])
def test_a_tiff_whose_strips_do_not_reach_to_the_end_is_refused(tmp_path, planes):
    numbers = np.ones((3, 24, 32) if planes else (24, 32, 3), np.uint16)
    options = {"photometric": "rgb", "planarconfig": "separate" if planes else "contig", "rowsperstrip": 8}
    tifffile.imwrite(tmp_path / "a.tif", numbers, **options)
    _retag(tmp_path / "a.tif", ImageLength=240)
    with pytest.raises(image_files.ImageError, match=r"a\.tif: .*truncated"):
        image_files.load_image_u8(tmp_path / "a.tif")


def _retag(path, **values):
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in values.items():
            file.pages[0].tags[name].overwrite(value)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("kind", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_without_a_strip_or_tile_is_refused(tmp_path, tile, kind, dtype):
    """Those at 0 would be read as noise, by the header; those of 0 bytes, in planes of 16 bits, as black."""
    numbers, unit = np.full((24, 32, 3), 7, dtype), "Tile" if tile else "Strip"
    options = {"photometric": "rgb", "planarconfig": kind, "tile": tile, "rowsperstrip": None if tile else 8}
    stored = np.ascontiguousarray(np.moveaxis(numbers, 2, 0)) if kind == "separate" else numbers
    tifffile.imwrite(tmp_path / "sound.tif", stored, **options)
    with tifffile.TiffFile(tmp_path / "sound.tif") as file:
        offsets, lengths = file.pages[0].dataoffsets, file.pages[0].databytecounts
    for number in range(len(offsets)):
        for name, values in ((f"{unit}Offsets", offsets), (f"{unit}ByteCounts", lengths)):
            (tmp_path / "a.tif").write_bytes((tmp_path / "sound.tif").read_bytes())
            _retag(tmp_path / "a.tif", **{name: [*values[:number], 0, *values[number + 1 :]]})
            if name.endswith("Counts") and (dtype, kind) != (np.uint16, "separate"):
                assert np.array_equal(photos.load_photo(tmp_path / "a.tif").pixels, numbers)  # they need no counts
                continue
            with pytest.raises(image_files.ImageError, match=r"a\.tif: .*truncated"):
                image_files.load_image_u8(tmp_path / "a.tif")


def test_planes_without_all_their_counts_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 24, 32), np.uint16), photometric="rgb", planarconfig="separate")
    _retag(tmp_path / "a.tif", StripByteCounts=24 * 32 * 2)
    with pytest.raises(image_files.ImageError, match=r"a\.tif: .*truncated"):
        image_files.load_image_u8(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("rows", "change"),
    [
        (8, {"ImageWidth": 480}),
        (8, {"ImageLength": 39}),
        (8, {"RowsPerStrip": 40}),
        (1000, {"ImageLength": 400}),
        (8, {}),
    ],
)
def test_a_tiff_in_jpeg_that_ends_too_early_is_refused(tmp_path, rows, change):
    """libtiff would read the rest as grey, and what lies beyond the JPEG as black."""
    path = tmp_path / "a.tif"
    Image.fromarray(_gradient(36, 48)).save(path, compression="jpeg", tiffinfo={278: rows})
    assert np.abs(image_files.load_image_u8(path).astype(int) - _gradient(36, 48)).mean() < 3
    with tifffile.TiffFile(path) as file:
        lengths = file.pages[0].databytecounts
    _retag(path, **change or {"StripByteCounts": [*lengths[:-1], lengths[-1] // 2]})
    with pytest.raises(image_files.ImageError, match=r"a\.tif: .*truncated"):
        image_files.load_image_u8(path)


def test_nothing_is_printed_of_a_damaged_tiff(tmp_path, capfd, monkeypatch):
    """By none of libtiff, tifffile and Pillow: their lines name no file."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, which keep log lines from stderr
    Image.fromarray(_gradient()).save(tmp_path / "a.tif", compression="tiff_deflate")
    planes = np.moveaxis(_gradient().astype(np.uint16), 2, 0)
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="rgb", planarconfig="separate", software="x" * 40)
    data = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].dataoffsets[0]
    (tmp_path / "a.tif").write_bytes(data[:place] + bytes(20) + data[place + 20 :])
    _retag(tmp_path / "b.tif", StripByteCounts=[7, 7, 7])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        place = file.pages[0].tags["Software"].offset
    data = bytearray((tmp_path / "b.tif").read_bytes())
    data[place + 2 : place + 4] = struct.pack("<H", 99)  # no type of a tag
    (tmp_path / "b.tif").write_bytes(data)
    tifffile.imwrite(tmp_path / "c.tif", _gradient(), photometric="rgb")
    _retag(tmp_path / "c.tif", SamplesPerPixel=20996)
    capfd.readouterr()
    for name in ("a.tif", "b.tif", "c.tif"):
        with pytest.raises(image_files.ImageError, match=name):
            image_files.load_image_u8(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_of_thousands_of_pages_only_the_first_is_looked_at(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(4000):
            file.write(np.zeros((4, 4, 3), np.uint8), photometric="rgb", contiguous=False, metadata=None)
    reads = []

    class Counted(io.FileIO):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    with Counted(tmp_path / "a.tif") as file:
        assert image_files.decode(file, "a.tif").left_out == "all frames or pages but the first"
    assert len(reads) < 200


def test_every_16_bit_level_is_rounded_in_grey_and_in_colour(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    exact = levels / 257
    assert np.abs(image_files.load_image_u8(tmp_path / "grey.png")[..., 0] - exact).max() <= 0.5
    rows = np.repeat(levels[..., None], 3, axis=2).astype(">u2")
    pixels = b"".join(b"\x00" + row.tobytes() for row in rows)
    loaded = image_files.load_image_u8(_png(tmp_path / "rgb.png", 256, 256, depth=16, kind=2, pixels=pixels))
    assert np.abs(loaded[..., 1] - exact).max() <= 0.5


def test_floats_beyond_one_are_scaled_and_nothing_infinite_is_left(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 5, 10, -1, np.nan, np.inf]], np.float32))
    assert image_files.load_image_u8(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255, 0, 0, 255]


@pytest.mark.parametrize(
    ("kind", "depth", "pixels", "clear", "expected"),
    [
        (0, 1, b"\x00\x40", b"\x00\x01", [0, 255]),
        (0, 2, b"\x00\x60", b"\x00\x01", [255, 170]),
        (0, 4, b"\x00\x5a", b"\x00\x05", [255, 170]),
        (0, 8, bytes([0, 70, 90]), b"\x00\x46", [255, 90]),
        (0, 16, b"\x00" + struct.pack(">2H", 25700, 514), struct.pack(">H", 514), [100, 255]),
        (2, 8, bytes([0, 9, 9, 9, 40, 40, 40]), b"\x00\x09" * 3, [255, 40]),
        (4, 16, b"\x00" + struct.pack(">4H", 25700, 65535, 25700, 0), b"", [100, 255]),
        (6, 16, b"\x00" + struct.pack(">8H", *[25700] * 3, 65535, *[25700] * 3, 0), b"", [100, 255]),
    ],
)
def test_transparent_pngs_of_every_kind(tmp_path, kind, depth, pixels, clear, expected):
    path = _png(tmp_path / "a.png", 2, 1, depth, kind, pixels, clear)
    assert image_files.load_image_u8(path).tolist() == [[[level] * 3 for level in expected]]
    assert photos.load_photo(path).alpha is not None


def test_a_palette_with_half_transparent_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png", transparency=bytes([255, 51, 0]))
    assert image_files.load_image_u8(tmp_path / "a.png").tolist() == [[[255, 0, 0], [204, 255, 204], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["ASSOCALPHA", "UNASSALPHA"])
def test_premultiplied_alpha_is_not_multiplied_twice(tmp_path, kind):
    colour = np.array([200, 100, 50])
    stored = np.round(colour * 0.2) if kind == "ASSOCALPHA" else colour
    pixels = np.array([[[*stored, 51]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[kind])
    np.testing.assert_allclose(image_files.load_image_u8(tmp_path / "a.tif")[0, 0], 204 + colour * 0.2, atol=1)


def test_grey_and_palette_tiffs_with_alpha(tmp_path):
    for mode, colour in (("LA", (114, 51)), ("PA", (114, 51))):
        picture = Image.new(mode, (3, 2), colour)
        if mode == "PA":
            picture.putpalette([level for level in range(256) for _ in range(3)])
        picture.save(tmp_path / "a.tif")
        assert Image.open(tmp_path / "a.tif").mode == mode
        assert np.abs(image_files.load_image_u8(tmp_path / "a.tif").astype(int) - (204 + 114 * 0.2)).max() <= 1


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("channels", [2, 5])
def test_planes_that_pillow_cannot_put_together_are_refused(tmp_path, compression, channels):
    kind, extra = ("rgb", ["unassalpha", "unspecified"]) if channels == 5 else ("minisblack", ["unassalpha"])
    options = {"photometric": kind, "planarconfig": "separate", "extrasamples": extra, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", np.full((channels, 9, 7), 200, np.uint8), **options)
    with pytest.raises(image_files.ImageError, match=r"a\.tif: planes .* save it without"):
        photos.load_photo(tmp_path / "a.tif")


def test_a_tiff_of_signed_8_bits_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-60, 60]], np.int8))
    with pytest.raises(image_files.ImageError, match=r"a\.tif: signed numbers of 8 bits"):
        photos.load_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("unit", [1, 257])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_maps_of_8_bits_are_read_as_those_of_16(tmp_path, unit, compression):
    colours = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    options = {"photometric": "palette", "colormap": colours * np.uint16(unit), "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", np.arange(256, dtype=np.uint8)[None], **options)
    assert np.array_equal(photos.load_photo(tmp_path / "a.tif").pixels[0], colours.T)


def _smooth(channels, height=32, width=48):
    rows, columns = np.mgrid[:height, :width] / 48
    return np.stack([127 + 100 * np.sin(2 * rows + 3 * columns + 1.5 * c) for c in range(channels)], -1).astype(
        np.uint8
    )


@pytest.mark.parametrize("space", ["CMYK", "YCCK"])
def test_cmyk_jpegs_in_both_of_adobes_ways(tmp_path, space):
    """Adobe stores ink inverted; with transform 2 in its marker C, M and Y are stored as Y, Cb and Cr."""
    ink = _smooth(4)
    stored = ink
    if space == "YCCK":
        planes = np.asarray(Image.fromarray(ink[..., :3]).convert("YCbCr"))
        stored = np.dstack([255 - planes, ink[..., 3:]])
    Image.fromarray(stored, "CMYK").save(tmp_path / "a.jpg", quality=100)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    data[place] = 2 if space == "YCCK" else 0
    (tmp_path / "a.jpg").write_bytes(data)
    rest = 255.0 - ink
    expected = rest[..., :3] * rest[..., 3:] / 255
    assert np.abs(image_files.load_image_u8(tmp_path / "a.jpg") - expected).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"progressive": True}])
def test_a_jpeg_that_ends_early_though_its_end_is_marked_is_no_whole_one(tmp_path, options, mode):
    pixels = _smooth(3, 128, 160) ^ np.random.default_rng(0).integers(0, 9, (128, 160, 3), np.uint8)
    grey_end = np.concatenate([pixels, np.full((64, 160, 3), 128, np.uint8)])
    for whole in (pixels, grey_end):
        Image.fromarray(whole).convert(mode).save(tmp_path / "a.jpg", quality=90, **options)
        data = (tmp_path / "a.jpg").read_bytes()
        scan = data.index(b"\xff\xda")
        most = data.rindex(b"\xff\xda") if options.get("progressive") else scan + (len(data) - scan) * 2 // 3
        for tail in (b"", b"more"):
            (tmp_path / "a.jpg").write_bytes(data + tail)
            assert photos.load_photo(tmp_path / "a.jpg").left_out == ""
        for cut in (data[:most] + b"\xff\xd9", data[:most] + bytes(len(data) - most - 2) + b"\xff\xd9"):
            (tmp_path / "a.jpg").write_bytes(cut)
            if options.get("progressive"):
                assert "fine detail" in photos.load_photo(tmp_path / "a.jpg").left_out
                continue
            with pytest.raises(image_files.ImageError, match=r"a\.jpg: truncated: its last rows are missing"):
                photos.load_photo(tmp_path / "a.jpg")


def test_cmyk_ycbcr_and_lab_tiffs(tmp_path):
    from skimage.color import rgb2lab

    ink = _smooth(4)
    tifffile.imwrite(tmp_path / "cmyk.tif", ink, photometric="separated")
    rest = 255.0 - ink
    loaded = image_files.load_image_u8(tmp_path / "cmyk.tif")
    np.testing.assert_allclose(loaded, rest[..., :3] * rest[..., 3:] / 255, atol=1)
    colour = _smooth(3) // 4 + 100  # muted: all of it lies within sRGB
    Image.fromarray(colour).convert("YCbCr").save(tmp_path / "ycbcr.tif")
    np.testing.assert_allclose(image_files.load_image_u8(tmp_path / "ycbcr.tif").astype(int), colour, atol=3)
    with Image.open(tmp_path / "ycbcr.tif") as image:
        image._mode, image.tile = "RGB", [tile._replace(args=("RGBX", 0, 1)) for tile in image.tile]  # Pillow 11, 12
        loaded = decoding.eight_bits(image, decoding.load(image))
    np.testing.assert_allclose(loaded.astype(int), colour, atol=3)
    lab = rgb2lab(colour, illuminant="D65")
    stored = np.dstack([np.round(lab[..., 0] * 2.55), np.round(lab[..., 1:]).astype(np.int8).view(np.uint8)])
    tifffile.imwrite(tmp_path / "lab.tif", stored.astype(np.uint8), photometric="cielab")
    assert photos.load_photo(tmp_path / "lab.tif").mode == "LAB"
    np.testing.assert_allclose(image_files.load_image_u8(tmp_path / "lab.tif").astype(int), colour, atol=5)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert np.abs(image_files.load_image_u8(tmp_path / f"a{suffix}").astype(int) - [255, 0, 0]).max() <= 2


def test_a_colour_profile_changes_no_pixel(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(_gradient()).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(image_files.load_image_u8(tmp_path / "a.png"), _gradient())


def test_one_pixel_goes_all_the_way(tmp_path):
    image = np.array([[[0.2, 0.4, 0.6]]], dtype=np.float32)
    image_files.save_image(tmp_path / "dot.png", image)
    loaded = image_files.load_image(tmp_path / "dot.png")
    assert loaded.shape == (1, 1, 3) and loaded.dtype == np.float32
    np.testing.assert_allclose(tensors.to_image(tensors.to_tensor(loaded)), image, atol=1e-6)


def test_loaded_pixels_may_be_written_to(jpeg):
    image = image_files.load_image_u8(jpeg)
    image += 1


def _truncated(folder):
    Image.fromarray(_gradient(64, 96)).save(folder / "bad.jpg")
    whole = (folder / "bad.jpg").read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.jpg"


def _text(folder):
    (folder / "bad.png").write_text("<html>404 not found</html>")
    return folder / "bad.png"


def _empty(folder):
    (folder / "bad.png").touch()
    return folder / "bad.png"


def _folder(folder):
    (folder / "bad.png").mkdir()
    return folder / "bad.png"


def _bomb(folder):
    return _png(folder / "bad.png", 60_000, 60_000, depth=8, kind=2)


def _bombs_of_other_kinds(kind):
    def build(folder):
        if kind == "bmp":
            head = struct.pack("<2sIHHI", b"BM", 100, 0, 0, 54)
            data = head + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        elif kind == "gif":
            data = b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b"\x2c"
            data += struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x08\x00\x3b"
        else:
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
            data = bytearray(buffer.getvalue())
            for tag in (256, 257):
                place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
                data[place : place + 4] = struct.pack("<I", 60_000)
        (folder / "bad.png").write_bytes(data + bytes(200))
        return folder / "bad.png"

    return build


def _wrong_checksum(folder):
    Image.fromarray(_gradient()).save(folder / "bad.png")
    data = bytearray((folder / "bad.png").read_bytes())
    data[data.index(b"IEND") - 6] ^= 255  # within the checksum of the pixels
    (folder / "bad.png").write_bytes(data)
    return folder / "bad.png"


def _nowhere(folder):
    (folder / "bad.png").symlink_to(folder / "gone.png")
    return folder / "bad.png"


def _pipe(folder):
    os.mkfifo(folder / "bad.png")
    return folder / "bad.png"


def _drawing(folder):
    (folder / "bad.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    return folder / "bad.png"


def _no_pixels(folder):
    return _png(folder / "bad.png", 40, 40, depth=8, kind=2, pixels=b"\x00" * 60)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_truncated, "unreadable .*truncated"),
        (_text, "not an image"),
        (_empty, "not an image"),
        (_folder, "is a folder"),
        (_bomb, "too large .*3600000000 pixels.*scale it down"),
        (_bombs_of_other_kinds("bmp"), "too large .*3600000000 pixels.*scale it down"),
        (_bombs_of_other_kinds("gif"), "too large .*3600000000 pixels.*scale it down"),
        (_bombs_of_other_kinds("tiff"), "too large .*3600000000 pixels.*scale it down"),
        (_wrong_checksum, "unreadable"),
        (_nowhere, r"no such file \(a link to .*gone\.png\)"),
        (_pipe, "pipe"),
        (_drawing, "Encapsulated Postscript, which is not read here; convert it"),
        (_no_pixels, "unreadable"),
        (lambda folder: folder / "bad.png", "no such file"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, build, words):
    path = build(tmp_path)
    with pytest.raises(image_files.ImageError, match=re.escape(str(path)) + ".*" + words) as caught:
        image_files.load_image_u8(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).count(str(path)) == 1


def test_a_bomb_is_refused_even_where_someone_lifted_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(image_files.ImageError, match="too large .60000x60000 = 3600000000 pixels.*scale it down"):
        image_files.load_image_u8(_bomb(tmp_path))


def test_16_bits_take_little_more_memory_than_they_are(tmp_path):
    """A megabyte of file can be gigabytes: what is too much is refused, the rest is held in memory once and a half."""
    rows = zlib.compressobj(1)
    pixels = b"".join(rows.compress(bytes(1 + 3500 * 8)) for _ in range(3500)) + rows.flush()
    path = _png(tmp_path / "a.png", 3500, 3500, 16, 6, packed=pixels)
    code = """if True:
        import resource, sys
        from ttlkit.data import photos
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        at_first = peak()
        photo = photos.load_photo(sys.argv[1])
        photos.save_photo(sys.argv[1] + "-again.png", photo)
        size = (photo.pixels.size + photo.alpha.size) * 2 / 2**20
        assert peak() - at_first < 1.7 * size, f"{peak() - at_first:.0f} MB for {size:.0f} MB"
    """
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_memory_stays_bounded(tmp_path):
    """A bomb takes none; 100 megapixels take the picture, the array and little more: 3 to 4 bytes a pixel each."""
    rows = b"\x00" + bytes(10_000 * 3)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(rows) for _ in range(10_000)) + packer.flush()
    big = _png(tmp_path / "big.png", 10_000, 10_000, depth=8, kind=2, packed=pixels)
    code = """if True:
        import resource, sys
        from PIL import Image
        from ttlkit.data import image_files
        from ttlkit.data import tensors
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        at_first = peak()
        for lifted in (Image.MAX_IMAGE_PIXELS, None):
            Image.MAX_IMAGE_PIXELS = lifted
            try:
                image_files.load_image_u8(sys.argv[1])
            except image_files.ImageError:
                pass
            else:
                sys.exit("the bomb was read")
        assert peak() - at_first < 30, "the bomb took memory"
        assert image_files.load_image_u8(sys.argv[2]).shape == (10_000, 10_000, 3)
        assert peak() - at_first < 850, f"{peak() - at_first:.0f} MB for 100 megapixels"
    """
    command = [sys.executable, "-c", code, str(_bomb(tmp_path)), str(big)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


ENCODINGS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "lossy": ("WEBP", {}),
    "tiff": ("TIFF", {}),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def _encoded(encoding):
    kind, options = ENCODINGS[encoding]
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 20, (40, 56, 3))
    Image.fromarray((_gradient(40, 56) // 2 + noise).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=40, deadline=None)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused_or_whole_never_half_grey(tmp_path_factory, encoding, part):
    data = _encoded(encoding)
    path = tmp_path_factory.getbasetemp() / f"cut-{encoding}.png"
    path.write_bytes(data)
    whole = image_files.load_image_u8(path)
    path.write_bytes(data[: int(part * len(data))])
    try:
        assert np.array_equal(image_files.load_image_u8(path), whole)
    except image_files.ImageError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=30, deadline=None)
@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path_factory, encoding, damage):
    data = bytearray(_encoded(encoding))
    for part, value in damage:
        data[int(part**2 * len(data))] = value  # headers, which are in front, are hit more often
    path = tmp_path_factory.getbasetemp() / f"hit-{encoding}.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loaded = image_files.load_image_u8(path)
        except image_files.ImageError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert loaded.dtype == np.uint8 and loaded.ndim == 3


@pytest.mark.parametrize("name", ["straße 雨.png", "two\nlines.png", "tab\t.png", os.fsdecode(b"latin-\xfc.png")])
def test_any_file_name_will_do_and_stays_on_one_line(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(_gradient()).save(tmp_path / "plain.png")
    os.replace(tmp_path / "plain.png", path)
    assert np.array_equal(image_files.load_image_u8(path), _gradient())
    image_files.save_image(path, 255 - _gradient())
    assert np.array_equal(image_files.load_image_u8(path), 255 - _gradient())
    path.write_text("no image")
    with pytest.raises(image_files.ImageError, match="not an image") as caught:
        image_files.load_image_u8(path)
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode()  # can be printed


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(image_files.ImageError, match="cannot be opened"):
        image_files.load_image_u8(tmp_path / "a\0.png")
    with pytest.raises(image_files.ImageError, match="cannot be opened"):
        image_files.load_image_u8(tmp_path / ("a" * 300 + ".png"))


def test_no_warning_gets_out(tmp_path, capfd):
    """Neither Pillow's (size, metadata, palettes) nor libtiff's own, which goes past Python."""
    tifffile.imwrite(tmp_path / "a.tif", _gradient(), photometric="rgb", compression="zlib", extratags=[
        (65000, 3, 1, 7, False), (33432, 2, 0, b"\xff\xfe broken", False)
    ])  # fmt: skip
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    picture.save(tmp_path / "b.png", transparency=bytes([0, 128]))
    rows = b"".join(b"\x00" + bytes(1250) for _ in range(9_500))
    _png(tmp_path / "c.png", 10_000, 9_500, depth=1, kind=0, pixels=rows)  # 95 megapixels: Pillow warns
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for name in ("a.tif", "b.png", "c.png"):
            image_files.load_image_u8(tmp_path / name)
    assert heard == []
    assert capfd.readouterr().err == ""


def test_a_file_without_permission_is_named(ordinary_user):
    path = ordinary_user / "secret.png"
    image_files.save_image(path, _gradient())
    path.chmod(0)
    with pytest.raises(image_files.ImageError, match=r"secret\.png: cannot be opened \(Permission denied\)"):
        image_files.load_image_u8(path)
    path.chmod(0o600)
    ordinary_user.chmod(0o300)
    with pytest.raises(image_files.ImageError, match=r"cannot be listed \(Permission denied\)"):
        image_files.list_images(ordinary_user)


def test_a_read_only_folder_is_named_and_left_as_it_is(ordinary_user):
    image_files.save_image(ordinary_user / "a.png", _gradient())
    ordinary_user.chmod(0o500)
    for target in ("a.png", "b.png", "new/c.png"):
        with pytest.raises(
            image_files.ImageError, match=re.escape(target) + r": cannot be written \(Permission denied\)"
        ):
            image_files.save_image(ordinary_user / target, 255 - _gradient())
    assert os.listdir(ordinary_user) == ["a.png"]
    assert np.array_equal(image_files.load_image_u8(ordinary_user / "a.png"), _gradient())


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("rgb.jpg", ("RGB", 8, False, False)),
        ("rgba.png", ("RGBA", 8, True, False)),
        ("l.png", ("L", 8, False, True)),
        ("1.png", ("1", 1, False, True)),
        ("i;16.png", ("I;16", 16, False, True)),
        ("cmyk.jpg", ("CMYK", 8, False, False)),
        ("f.tif", ("F", 32, False, True)),
    ],
)
def test_a_photo_says_how_its_file_had_it(tmp_path, name, facts):
    Image.new(Path(name).stem.upper(), (30, 20)).save(tmp_path / name)
    found = photos.load_photo(str(tmp_path / name))
    assert (found.mode, found.bits, found.alpha is not None, found.grey) == facts
    assert found.pixels.shape == (20, 30, 3) and found.orientation == 1


def test_16_bit_colour_is_told_from_8(tmp_path):
    path = _png(tmp_path / "a.png", 2, 1, depth=16, kind=2, pixels=bytes(13))
    found = photos.load_photo(path)
    assert (found.mode, found.bits, found.pixels.dtype) == ("RGB", 16, np.uint16)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 700), value=st.integers(0, 255), cut=st.integers(20, 4000))
def test_a_damaged_file_is_read_or_refused_never_another_error(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    Image.fromarray(_gradient(64, 96)).save(path, quality=90)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data[:cut])
    try:
        assert image_files.load_image_u8(path).dtype == np.uint8
    except image_files.ImageError as error:
        assert "damaged.jpg" in str(error)


def test_list_images_sorts_and_leaves_out_the_rest(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "._a.jpg", "c.webp", "a10.png", "a9.png", "png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")  # reading it says so; a silent gap would not
    (tmp_path / "link.png").symlink_to(tmp_path / "a.jpg")
    names = ["a.jpg", "a10.png", "a9.png", "b.PNG", "c.webp", "link.png", "lost.png"]
    assert [path.name for path in image_files.list_images(tmp_path)] == names
    assert image_files.list_images(tmp_path / "nowhere") == []


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".webp"])
def test_save_and_load_return_the_same_pixels(tmp_path, suffix):
    path = tmp_path / "new" / f"image{suffix}"
    image_files.save_image(path, _gradient())
    assert np.array_equal(image_files.load_image_u8(path), _gradient())
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    image_files.save_image(tmp_path / f"image{suffix}", _gradient())
    loaded = image_files.load_image_u8(tmp_path / f"image{suffix}").astype(int)
    assert np.abs(loaded - _gradient()).mean() < 3


def test_options_go_to_pillow(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    image_files.save_image(tmp_path / "best.jpg", noise)
    image_files.save_image(tmp_path / "small.jpg", noise, quality=20)
    assert os.path.getsize(tmp_path / "small.jpg") < 0.5 * os.path.getsize(tmp_path / "best.jpg")


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(image_files.ImageError, match=r"'\.xyz'.*\.png"):
        image_files.save_image(tmp_path / "image.xyz", _gradient())
    assert os.listdir(tmp_path) == []


def test_a_failed_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    image_files.save_image(path, _gradient())
    old = path.read_bytes()

    def full_disk(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(
        image_files.ImageError, match=r"image\.png: cannot be written \(No space left on device\); free"
    ):
        image_files.save_image(path, 255 - _gradient())
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["image.png"]


@pytest.fixture
def small_files():
    """No file may grow past 4000 bytes: a real write that fails half-way, as on a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("suffix", image_files.SUFFIXES)
def test_a_save_cut_short_by_the_system_leaves_the_old_file_and_nothing_else(tmp_path, suffix, small_files):
    path = tmp_path / f"image{suffix}"
    image_files.save_image(path, _gradient(8, 8))
    old = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    with pytest.raises(image_files.ImageError, match="cannot be written") as caught:
        image_files.save_image(path, noise)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_gives_one_line(tmp_path):
    files.partial_of(tmp_path / "image.png").symlink_to("/dev/full")  # where the partial file goes
    with pytest.raises(image_files.ImageError, match=r"image\.png: cannot be written \(No space left on device\)"):
        image_files.save_image(tmp_path / "image.png", _gradient())
    assert os.listdir(tmp_path) == []


def test_places_where_no_image_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for target in ("file/a.png", "folder.png"):
        with pytest.raises(image_files.ImageError, match=re.escape(target) + ": cannot be written"):
            image_files.save_image(tmp_path / target, _gradient())
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]
    image_files.save_image(tmp_path / ("a" * 250 + ".png"), _gradient())  # as long as a name may be


@pytest.mark.parametrize(("name", "most"), [("a.jpg", 65500), ("a.jpeg", 65500), ("a.webp", 16383)])
def test_a_size_that_the_format_cannot_hold_is_said(tmp_path, name, most):
    for shape in ((1, most), (most, 1)):
        image_files.save_image(tmp_path / name, np.zeros((*shape, 3), np.uint8))
        assert image_files.load_image_u8(tmp_path / name).shape == (*shape, 3)
    (tmp_path / name).unlink()
    for height, width in ((1, most + 1), (most + 1, 1)):
        with pytest.raises(image_files.ImageError) as caught:
            image_files.save_image(tmp_path / name, np.zeros((height, width, 3), np.uint8))
        kind = "WEBP" if name == "a.webp" else "JPEG"
        words = f"{kind} holds {most} pixels a side, not {width}x{height}; use PNG or TIFF"
        assert str(caught.value) == f"{tmp_path / name}: {words}"
    assert os.listdir(tmp_path) == []
    for suffix in (".png", ".tif", ".bmp"):
        image_files.save_image(tmp_path / f"a{suffix}", np.zeros((1, 70_000, 3), np.uint8))


def test_to_u8_rounds_and_clips():
    values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1, 2], dtype=np.float32)
    assert image_files.to_u8(values).tolist() == [0, 0, 0, 1, 255, 255, 255]


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_conversions_return_every_uint8_image_exactly(image_u8):
    assert np.array_equal(image_files.to_u8(image_files.to_float(image_u8)), image_u8)
    tensor = tensors.to_tensor(image_u8)
    assert tensor.shape == (1, 3, *image_u8.shape[:2])
    assert np.array_equal(image_files.to_u8(tensors.to_image(tensor)), image_u8)
    assert np.array_equal(tensors.to_image(tensor), tensors.to_image(tensor[0]))


def test_floats_are_floats_already():
    for dtype in (np.float32, np.float64):
        image = np.full((1, 1, 3), 0.3, dtype)
        assert image_files.to_float(image) is image
        assert tensors.to_image(tensors.to_tensor(image)).dtype == np.float32
    assert image_files.to_float(np.array([0, 65535], np.uint16)).tolist() == [0, 1]


def test_to_grey_weighs_the_channels():
    np.testing.assert_allclose(image_files.to_grey(np.eye(3)[None]), [[0.299, 0.587, 0.114]], rtol=1e-6)


def test_resize_antialiases_and_keeps_flat_areas():
    checks = np.indices((64, 64)).sum(axis=0) % 2
    image = np.repeat(checks[..., None], 3, axis=2).astype(np.float32)
    small = image_files.resize(image, 8, 16)
    assert small.shape == (8, 16, 3) and small.dtype == np.float32
    np.testing.assert_allclose(small, 0.5, atol=0.02)  # without antialiasing it would be 0 or 1


def test_recompress_loses_more_at_lower_quality():
    image = np.random.default_rng(0).random((32, 40, 3), dtype=np.float32)
    errors = [np.abs(image_files.recompress(image, quality) - image).mean() for quality in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True)
    assert image_files.recompress(image, 50).dtype == np.float32
