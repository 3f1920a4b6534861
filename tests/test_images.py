"""Image files as they come: every odd kind is read right or refused by name."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ttlkit import images


def _png(path, width, height, depth, kind, pixels=b""):
    """A PNG written by hand: Pillow writes neither 16-bit RGB nor headers that lie."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )
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
    assert images.load_image_u8(tmp_path / "grey16.png").tolist() == [[[n] * 3 for n in (0, 1, 128, 255)]]
    Image.fromarray(levels).save(tmp_path / "grey16.tif")
    assert images.load_image_u8(tmp_path / "grey16.tif")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_rgb(tmp_path):
    pixels = b"\x00" + struct.pack(">6H", 0, 32896, 65535, 257, 51400, 25700)
    path = _png(tmp_path / "rgb16.png", 2, 1, depth=16, kind=2, pixels=pixels)
    assert images.load_image_u8(path).tolist() == [[[0, 128, 255], [1, 200, 100]]]


def test_float_tiff_in_unit_range(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "float.tif")
    assert images.load_image_u8(tmp_path / "float.tif")[0, :, 1].tolist() == [0, 128, 255]


def test_grey_is_expanded(tmp_path):
    Image.fromarray(_gradient()[..., 0]).save(tmp_path / "grey.png")
    loaded = images.load_image_u8(tmp_path / "grey.png")
    assert np.array_equal(loaded, np.repeat(_gradient()[..., :1], 3, axis=2))
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert images.load_image_u8(tmp_path / "bits.png").tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(("mode", "colour"), [("LA", (100,)), ("RGBA", (200, 100, 0))])
def test_alpha_is_laid_over_white(tmp_path, mode, colour):
    picture = Image.new(mode, (3, 1))
    for column, alpha in enumerate((0, 51, 255)):
        picture.putpixel((column, 0), (*colour, alpha))
    picture.save(tmp_path / "alpha.png")
    loaded = images.load_image_u8(tmp_path / "alpha.png").astype(int)[0]
    full = np.array(colour if len(colour) == 3 else colour * 3)
    assert loaded[0].tolist() == [255, 255, 255]
    assert np.abs(loaded[1] - (255 * 0.8 + full * 0.2)).max() <= 1
    assert loaded[2].tolist() == full.tolist()


def test_palette_with_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "palette.png", transparency=1)
    loaded = images.load_image_u8(tmp_path / "palette.png")
    assert loaded.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red, green, blue = images.load_image_u8(tmp_path / "cmyk.jpg")[8, 8].astype(int)
    assert red > 245 and green < 10 and blue < 10


@pytest.mark.parametrize(("orientation", "turns", "mirrored"), [(3, 2, False), (6, 3, False), (2, 0, True)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns, mirrored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_gradient()).save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(_gradient(), turns)
    expected = expected[:, ::-1] if mirrored else expected
    assert np.array_equal(images.load_image_u8(tmp_path / "turned.png"), expected)


def test_one_pixel_goes_all_the_way(tmp_path):
    image = np.array([[[0.2, 0.4, 0.6]]], dtype=np.float32)
    images.save_image(tmp_path / "dot.png", image)
    loaded = images.load_image(tmp_path / "dot.png")
    assert loaded.shape == (1, 1, 3) and loaded.dtype == np.float32
    np.testing.assert_allclose(images.to_image(images.to_tensor(loaded)), image, atol=1e-6)


def test_loaded_pixels_may_be_written_to(jpeg):
    image = images.load_image_u8(jpeg)
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
        (_no_pixels, "unreadable"),
        (lambda folder: folder / "bad.png", "no such file"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, build, words):
    path = build(tmp_path)
    with pytest.raises(images.ImageError, match=re.escape(str(path)) + ".*" + words):
        images.load_image_u8(path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 700), value=st.integers(0, 255), cut=st.integers(20, 4000))
def test_a_damaged_file_is_read_or_refused_never_another_error(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    Image.fromarray(_gradient(64, 96)).save(path, quality=90)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data[:cut])
    try:
        assert images.load_image_u8(path).dtype == np.uint8
    except images.ImageError as error:
        assert "damaged.jpg" in str(error)


def test_list_images_sorts_and_leaves_out_the_rest(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "._a.jpg", "c.webp"):
        (tmp_path / name).touch()
    assert [path.name for path in images.list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]
    assert images.list_images(tmp_path / "nowhere") == []


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_save_and_load_return_the_same_pixels(tmp_path, suffix):
    path = tmp_path / "new" / f"image{suffix}"
    images.save_image(path, _gradient())
    assert np.array_equal(images.load_image_u8(path), _gradient())
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    images.save_image(tmp_path / f"image{suffix}", _gradient())
    loaded = images.load_image_u8(tmp_path / f"image{suffix}").astype(int)
    assert np.abs(loaded - _gradient()).mean() < 3


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(images.ImageError, match=r"'\.xyz'.*\.png"):
        images.save_image(tmp_path / "image.xyz", _gradient())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "image.png"
    images.save_image(path, _gradient())
    old = path.read_bytes()

    def full_disk(*_args, **_options):
        raise OSError(28, "No space left on device")

    def half_written(_self, target, *_args, **_options):
        target.write_bytes(b"half")
        full_disk()

    if step == "write":
        monkeypatch.setattr(Image.Image, "save", half_written)
    else:
        monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        images.save_image(path, 255 - _gradient())
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["image.png"]


def test_to_u8_rounds_and_clips():
    values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1, 2], dtype=np.float32)
    assert images.to_u8(values).tolist() == [0, 0, 0, 1, 255, 255, 255]


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_conversions_return_every_uint8_image_exactly(image_u8):
    assert np.array_equal(images.to_u8(images.to_float(image_u8)), image_u8)
    tensor = images.to_tensor(image_u8)
    assert tensor.shape == (1, 3, *image_u8.shape[:2])
    assert np.array_equal(images.to_u8(images.to_image(tensor)), image_u8)
    assert np.array_equal(images.to_image(tensor), images.to_image(tensor[0]))


def test_to_grey_weighs_the_channels():
    np.testing.assert_allclose(images.to_grey(np.eye(3)[None]), [[0.299, 0.587, 0.114]], rtol=1e-6)


def test_resize_antialiases_and_keeps_flat_areas():
    checks = np.indices((64, 64)).sum(axis=0) % 2
    image = np.repeat(checks[..., None], 3, axis=2).astype(np.float32)
    small = images.resize(image, 8, 16)
    assert small.shape == (8, 16, 3) and small.dtype == np.float32
    np.testing.assert_allclose(small, 0.5, atol=0.02)  # without antialiasing it would be 0 or 1


def test_recompress_loses_more_at_lower_quality():
    image = np.random.default_rng(0).random((32, 40, 3), dtype=np.float32)
    errors = [np.abs(images.recompress(image, quality) - image).mean() for quality in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True)
    assert images.recompress(image, 50).dtype == np.float32
