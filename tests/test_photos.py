"""A photograph keeps what belongs to it: bits, alpha, grey, EXIF, colour profile."""

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from ttlkit.data import image_files, photos


def noise(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colour_come_back_bit_by_bit(tmp_path, name, channels):
    values = noise(300, 1031, channels)  # several strips
    alpha = values[..., 3:] if channels == 4 else None
    photos.save_photo(tmp_path / name, photos.Photo(values[..., :3], alpha))
    again = photos.load_photo(tmp_path / name)
    assert again.pixels.dtype == np.uint16 and np.array_equal(again.pixels, values[..., :3])
    assert (again.alpha is None) == (alpha is None) and (alpha is None or np.array_equal(again.alpha, alpha))
    assert again.bits == 16


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib", "predictor": True}])
def test_sixteen_bits_written_by_others_are_read(tmp_path, options):
    values = noise(23, 31, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)
    assert np.array_equal(photos.load_photo(tmp_path / "a.tif").pixels, values)


def test_others_read_our_tiff_of_sixteen_bits(tmp_path):
    values = noise(23, 31, 3)
    photos.save_photo(tmp_path / "a.tif", photos.Photo(values))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert (page.shape, page.dtype, page.photometric.name) == ((23, 31, 3), np.uint16, "RGB")
        assert not list(file.pages[1:])
    assert np.array_equal(photos.load_photo(tmp_path / "a.tif").pixels, values)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_stays_grey_with_sixteen_bits(tmp_path, name):
    values = noise(20, 30)
    Image.fromarray(values).save(tmp_path / name)
    photo = photos.load_photo(tmp_path / name)
    assert photo.grey and np.array_equal(photo.pixels[..., 1], values)
    photos.save_photo(tmp_path / f"again-{name}", photo)
    with Image.open(tmp_path / f"again-{name}") as image:
        assert image.mode.startswith("I;16") and np.array_equal(np.asarray(image), values)


def test_integers_of_32_bits_keep_what_16_hold(tmp_path):
    numbers = np.array([[0, 300, 65535]], np.int32)
    tifffile.imwrite(tmp_path / "a.tif", numbers, extratags=[(281, 3, 1, 65535, True)])  # MaxSampleValue
    photo = photos.load_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint16 and photo.pixels[0, :, 0].tolist() == [0, 300, 65535] and photo.bits == 32


def test_eight_bits_stay_and_sixteen_become_eight_where_the_format_has_no_more(tmp_path):
    values = noise(20, 30, 3, dtype=np.uint8)
    photos.save_photo(tmp_path / "a.png", photos.Photo(values))
    assert np.array_equal(photos.load_photo(tmp_path / "a.png").pixels, values)
    photos.save_photo(tmp_path / "a.bmp", photos.Photo(values.astype(np.uint16) * 257))
    assert np.array_equal(photos.load_photo(tmp_path / "a.bmp").pixels, values)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_alpha_stays(tmp_path, name):
    values = noise(20, 30, 4, dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "in.png")
    photos.save_photo(tmp_path / name, photos.load_photo(tmp_path / "in.png"))
    again = photos.load_photo(tmp_path / name)
    assert np.array_equal(again.alpha, values[..., 3:])
    assert np.array_equal(again.pixels, values[..., :3])  # the colour that nobody sees, too


def test_alpha_is_laid_over_white_where_the_format_has_none(tmp_path):
    values = noise(20, 30, 4, dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "in.png")
    photos.save_photo(tmp_path / "a.bmp", photos.load_photo(tmp_path / "in.png"))
    expected = image_files.load_image_u8(tmp_path / "in.png").astype(int)
    assert np.abs(image_files.load_image_u8(tmp_path / "a.bmp") - expected).max() <= 1


def test_a_transparent_colour_of_a_palette_becomes_alpha(tmp_path):
    Image.fromarray(noise(9, 9, dtype=np.uint8) % 3).convert("P").save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as image:
        index = np.asarray(image)
    assert np.array_equal(photos.load_photo(tmp_path / "a.png").alpha[..., 0] == 0, index == 0)


@pytest.mark.parametrize("source", ["in.jpg", "in.png", "in.tif"])
@pytest.mark.parametrize("target", ["a.jpg", "a.png", "a.tif", "a.webp", "deep.png", "deep.tif"])
def test_exif_and_profile_stay_and_the_orientation_is_applied(tmp_path, source, target):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera & Sons", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    picture = Image.fromarray(noise(40, 60, 3, dtype=np.uint8))
    picture.save(tmp_path / source, exif=exif.tobytes(), icc_profile=PROFILE)
    photo = photos.load_photo(tmp_path / source)
    assert photo.pixels.shape == (60, 40, 3)
    if target.startswith("deep"):
        photo = photo.with_pixels(photo.pixels.astype(np.uint16) * 257)
    photos.save_photo(tmp_path / target, photo)
    assert photos.load_photo(tmp_path / target).pixels.shape == (60, 40, 3)
    with Image.open(tmp_path / target) as image:
        image.load()
        assert image.size == (40, 60) and image.info["icc_profile"] == PROFILE
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "Camera & Sons" and found.get(ExifTags.Base.Orientation, 1) == 1
        assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400


def test_a_profile_for_other_colours_is_left_out(tmp_path):
    Image.new("CMYK", (9, 7), (10, 200, 30, 40)).save(
        tmp_path / "a.jpg", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 200
    )
    photo = photos.load_photo(tmp_path / "a.jpg")
    photos.save_photo(tmp_path / "b.jpg", photo)
    with Image.open(tmp_path / "b.jpg") as image:
        assert photo.icc and image.mode == "RGB" and "icc_profile" not in image.info


def test_a_truncated_file_is_named(tmp_path):
    photos.save_photo(tmp_path / "a.png", photos.Photo(noise(50, 50, 3)))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(image_files.ImageError, match=r"a\.png: unreadable"):
        photos.load_photo(tmp_path / "a.png")


@pytest.mark.parametrize("tag", [0x927C, 0x9286])  # maker note, comment
def test_of_an_exif_block_too_long_for_a_jpeg_the_rest_stays(tmp_path, tag):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera & Sons"
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ISOSpeedRatings: 400, tag: bytes(70_000)})
    photo = photos.Photo(noise(9, 7, 3, dtype=np.uint8), exif=exif.tobytes())
    for name in ("a.jpg", "a.png"):
        photos.save_photo(tmp_path / name, photo)
        with Image.open(tmp_path / name) as image:
            found = image.getexif()
            inner = found.get_ifd(ExifTags.IFD.Exif)
        assert found[ExifTags.Base.Make] == "Camera & Sons" and inner[ExifTags.Base.ISOSpeedRatings] == 400
        assert (tag in inner) == (name == "a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_png_is_written_whose_profile_is_too_long_to_be_read(tmp_path, dtype):
    for length in (1 << 20, (1 << 20) + 1):
        profile = PROFILE + np.random.default_rng(0).bytes(length - len(PROFILE))
        photo = photos.Photo(noise(9, 7, 3, dtype=dtype), icc=profile)
        photos.save_photo(tmp_path / "a.tif", photo)
        if length == 1 << 20:
            photos.save_photo(tmp_path / "a.png", photo)
            assert photos.load_photo(tmp_path / "a.png").icc == profile
        else:
            with pytest.raises(image_files.ImageError, match=r"b\.png: its colour profile .* save it as TIFF"):
                photos.save_photo(tmp_path / "b.png", photos.load_photo(tmp_path / "a.tif"))
            assert not (tmp_path / "b.png").exists()
