"""Every row of the table of formats in datasets/README.md is tried with files made here."""

import io
import struct
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from ttlkit.apply import bulk
from ttlkit.apply.restore import Engine
from ttlkit.data import image_files, photos

README = Path(__file__).resolve().parents[1] / "datasets" / "README.md"
TABLE = README.read_text(encoding="utf-8").split("| file | what happens | how |\n|---|---|---|\n")[1].split("\n\n")[0]
ROWS = {file: (happens, how) for file, happens, how in (row[2:-2].split(" | ") for row in TABLE.splitlines())}
MAKERS = {}


def row(name):
    """The function below makes the files of that row: it yields each, and gets back what became of it."""

    def known(maker):
        MAKERS[name] = maker
        return maker

    return known


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


Image.init()  # fills Image.SAVE
COLOUR, DEEP = noise(24, 32, 3), noise(24, 32, 3, dtype=np.uint16)


def saved(path, array=COLOUR, **options):
    Image.fromarray(array).save(path, **options)
    return path


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def pixels(done):
    return photos.load_photo(done.target).pixels


def engine():
    return Engine(lambda rainy: rainy, radius=0)  # what is tried here are the files


def test_every_row_has_a_test_and_every_test_a_row():
    assert list(MAKERS) == list(ROWS)
    assert {happens for happens, _ in ROWS.values()} == {"kept", "converted", "refused"}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_table_says_happens(name, tmp_path):
    (happens, how), steps, done = ROWS[name], MAKERS[name](tmp_path), None
    while True:
        try:
            source = steps.send(done)
        except StopIteration:
            break
        done = next(bulk.restore_files(engine(), bulk.plan_files(source, tmp_path / "out")))
        if happens == "refused":
            assert done.problem.startswith(f"{source}: ") and len(done.problem.splitlines()) == 1
            assert any(
                way in done.problem
                for way in ("convert it", "develop it", "save it", "scale it down", "fetch it again")
            )
            assert not done.target.exists()
        else:
            assert done.problem == ""
            assert bool(done.left_out) == ("derain says" in how), done.left_out
    assert done is not None


# ---- the rows ------------------------------------------------------------------------------------------------------


@row("PNG, TIFF, BMP, WebP, JPEG of 8 bits")
def eight_bits(folder):
    for name in ("a.png", "a.tif", "a.bmp", "a.webp"):
        done = yield saved(folder / name, lossless=True)
        assert np.array_equal(pixels(done), COLOUR)
    smooth = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], 32, 1).repeat(3, 2)
    done = yield saved(folder / "a.jpg", smooth, quality=95)
    assert np.abs(pixels(done).astype(int) - smooth).max() <= 3 and Image.open(done.target).format == "JPEG"


@row("PNG and TIFF of 16 bits, grey or RGB")
def sixteen_bits(folder):
    for name in ("a.png", "a.tif"):
        photos.save_photo(folder / name, photos.Photo(DEEP))
        done = yield folder / name
        assert np.array_equal(pixels(done), DEEP)
        done = yield saved(folder / f"grey-{name}", DEEP[..., 0])
        assert np.array_equal(np.asarray(Image.open(done.target)), DEEP[..., 0])


@row("TIFF in planes, tiles, compressed, of either byte order")
def layouts(folder):
    layouts = ({"tile": (16, 16)}, {"compression": "zlib", "predictor": True}, {"byteorder": ">"}, {"byteorder": "<"})
    for number, options in enumerate(layouts):
        for planar in ("contig", "separate"):
            array = DEEP if planar == "contig" else np.moveaxis(DEEP, 2, 0)
            path = folder / f"{number}-{planar}.tif"
            done = yield tiff(path, array, photometric="rgb", planarconfig=planar, **options)
            assert np.array_equal(pixels(done), DEEP)


@row("BigTIFF")
def big(folder):
    for array in (COLOUR, DEEP):
        done = yield tiff(folder / "a.tif", array, photometric="rgb", bigtiff=True)
        assert np.array_equal(pixels(done), array) and done.target.read_bytes()[2] == 42


@row("Grey")
def grey(folder):
    for name in ("a.png", "a.jpg", "a.tif"):
        done = yield saved(folder / name, COLOUR[..., 0])
        assert Image.open(done.target).mode == "L"


@row("Alpha and transparent colours")
def alpha(folder):
    array = noise(24, 32, 4)
    for name in ("a.png", "a.tif", "a.webp"):
        done = yield saved(folder / name, array, lossless=True, exact=True)
        assert np.array_equal(np.asarray(Image.open(done.target)), array)
    deep = noise(24, 32, 4, dtype=np.uint16)
    for name in ("b.png", "b.tif"):
        photos.save_photo(folder / name, photos.Photo(deep[..., :3], deep[..., 3:]))
        done = yield folder / name
        assert np.array_equal(photos.load_photo(done.target).alpha, deep[..., 3:])
    for name in ("c.png", "c.tif"):  # grey of 16 bits with alpha
        photos.save_photo(folder / name, photos.Photo(deep[..., :1].repeat(3, 2), deep[..., 3:], grey=True))
        done = yield folder / name
        found = photos.load_photo(done.target)
        assert np.array_equal(found.pixels, deep[..., :1].repeat(3, 2)) and np.array_equal(found.alpha, deep[..., 3:])
    picture = Image.fromarray(COLOUR)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(folder / "clear.png", transparency=(1, 2, 3))
    done = yield folder / "clear.png"
    assert np.asarray(Image.open(done.target))[0, 0].tolist() == [1, 2, 3, 0]
    yield saved(folder / "d.png", array)
    photos.save_photo(folder / "flat.jpg", photos.load_photo(folder / "d.png"))
    assert Image.open(folder / "flat.jpg").mode == "RGB"


@row("RGB profile, such as Display P3")
def profile(folder):
    for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
        done = yield saved(folder / name, icc_profile=display_p3(), lossless=True)
        assert Image.open(done.target).info["icc_profile"] == display_p3()
    photos.save_photo(folder / "deep.png", photos.Photo(DEEP, icc=display_p3()))
    done = yield folder / "deep.png"
    assert Image.open(done.target).info["icc_profile"] == display_p3() and np.array_equal(pixels(done), DEEP)


def display_p3():
    """A matrix profile with the primaries of Display P3, by the numbers (ICC.1:2010)."""

    def fixed(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    tags = {
        b"wtpt": fixed(0.9642, 1, 0.8249), b"rXYZ": fixed(0.5151, 0.2412, -0.0011),
        b"gXYZ": fixed(0.292, 0.6922, 0.0419), b"bXYZ": fixed(0.1571, 0.0666, 0.7841),
        **{name: b"curv\0\0\0\0" + struct.pack(">IHH", 1, 0x0233, 0) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }  # fmt: skip
    place, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, place + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s12x4s", place + len(data), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head.ljust(128, b"\0") + table + data


@row("EXIF block")
def exif_block(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera & Sons"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "35 mm"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
        done = yield saved(folder / name, exif=exif.tobytes())
        found = Image.open(done.target).getexif()
        assert found[ExifTags.Base.Make] == "Camera & Sons"
        assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "35 mm"
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(70_000)
    photos.save_photo(folder / "long.jpg", photos.Photo(COLOUR, exif=exif.tobytes()))
    found = Image.open(folder / "long.jpg").getexif()
    assert found[ExifTags.Base.Make] == "Camera & Sons" and len(found.get_ifd(ExifTags.IFD.Exif)) == 1
    done = yield tiff(folder / "big.tif", COLOUR, photometric="rgb", bigtiff=True, software="editor 7")
    assert Image.open(done.target).getexif()[ExifTags.Base.Software] == "editor 7"


@row("EXIF orientation, thumbnail")
def orientation(folder):
    small = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(small, "JPEG")
    thumbnail = small.getvalue()
    entries = lambda *tags: struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)  # noqa: E731
    first = entries((0x0112, 3, 1, 6)) + struct.pack("<I", 26)
    second = entries((0x0201, 4, 1, 26 + 30), (0x0202, 4, 1, len(thumbnail))) + struct.pack("<I", 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + thumbnail
    done = yield saved(folder / "a.jpg", exif=block, quality=95)
    assert thumbnail in (folder / "a.jpg").read_bytes() and thumbnail not in done.target.read_bytes()
    with Image.open(done.target) as image:
        assert image.size == (24, 32) and image.getexif()[ExifTags.Base.Orientation] == 1


@row("XMP, IPTC, PNG text, comments")
def text(folder):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Title", "a secret word")
    done = yield saved(folder / "a.png", pnginfo=info)
    assert b"secret" not in done.target.read_bytes()
    done = yield saved(folder / "a.jpg", xmp=b"<x>a secret word</x>", comment=b"a secret word")
    assert b"secret" not in done.target.read_bytes()


def png_with(folder, *chunks):
    """PNGs with more chunks, in front of the pixels and behind: (name, content, whether its checksum is right)."""
    data = saved(folder / "plain.png").read_bytes()
    more = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ (not right))
        for name, content, right in chunks
    )
    for place in (33, data.index(b"IEND") - 4):
        path = folder / f"text-{place}.png"
        path.write_bytes(data[:place] + more + data[place:])
        yield path


@row("PNG with damaged parts beside the pixels, or more than a megabyte of text or profile")
def long_text(folder):
    megabytes = b"<x:xmpmeta>" + b"history " * 300_000
    for chunks in (
        [(b"zTXt", b"Comment\0\0" + zlib.compress(megabytes), True)],
        [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(megabytes), True)],
        [(b"tEXt", b"Comment\0word", False)],
        [(b"tIME", b"\7\xe9\1\1\1\1\1", False)],
        [(b"gAMA", b"", True)],
        [(b"pHYs", b"\0\0", True)],
        [(b"iCCP", b"profile\0\7" + zlib.compress(display_p3()), True)],
        [(b"iCCP", b"profile\0\0" + zlib.compress(bytes(1 << 21)), True)],
    ):
        for path in png_with(folder, *chunks):
            done = yield path
            assert np.array_equal(pixels(done), COLOUR) and chunks[0][0].decode() in done.left_out


@row("Palette (GIF, PNG)")
def palette(folder):
    picture = Image.fromarray(COLOUR).quantize(16)
    for name in ("a.png", "b.gif"):
        picture.save(folder / name)
        done = yield folder / name
        assert np.array_equal(pixels(done), np.asarray(picture.convert("RGB"))) or name == "b.gif"
        assert Image.open(done.target).mode == "RGB"


@row("JPEG that ends too early")
def short_jpeg(folder):
    data = saved(folder / "a.jpg").read_bytes()
    half = (data.index(b"\xff\xda") + len(data)) // 2
    for end in (b"", b"\xff\xd9"):
        (folder / "a.jpg").write_bytes(data[:half] + end)
        yield folder / "a.jpg"


@row("Progressive JPEG whose last parts are missing")
def coarse_jpeg(folder):
    data = saved(folder / "a.jpg", progressive=True).read_bytes()
    (folder / "a.jpg").write_bytes(data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")
    done = yield folder / "a.jpg"
    assert "fine detail" in done.left_out


@row("CMYK")
def cmyk(folder):
    Image.new("CMYK", (32, 24), (0, 255, 255, 0)).save(folder / "a.jpg", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 200)
    done = yield folder / "a.jpg"
    with Image.open(done.target) as image:
        assert image.mode == "RGB" and "icc_profile" not in image.info and image.getpixel((9, 9))[0] > 240


@row("Lab and YCbCr TIFF")
def lab(folder):
    done = yield tiff(folder / "lab.tif", np.full((24, 32, 3), (255, 0, 0), np.uint8), photometric="cielab")
    assert pixels(done).min() > 250
    Image.fromarray(COLOUR).convert("YCbCr").save(folder / "b.tif")
    done = yield folder / "b.tif"
    assert Image.open(done.target).mode == "RGB"


@row("Palette TIFF whose colours have 8 bits instead of 16")
def colour_map(folder):
    colours = noise(3, 256).astype(np.uint16)
    done = yield tiff(folder / "a.tif", COLOUR[..., 0], photometric="palette", colormap=colours)
    assert np.array_equal(pixels(done), np.moveaxis(colours[:, COLOUR[..., 0]], 0, 2))


@row("Grey TIFF of 12 bits (little-endian, 0 is black); TIFF whose MaxSampleValue says so")
def twelve_bits(folder):
    levels = np.array([[0, 1, 2048, 4095]], np.uint16).repeat(2, 0)
    expected = [0, 16, 32776, 65535]
    done = yield tiff(folder / "a.tif", levels, extratags=[(281, 3, 1, 4095, True)])
    assert pixels(done)[0, :, 0].tolist() == expected
    done = yield tiff(
        folder / "c.tif", levels[..., None].repeat(3, 2), photometric="rgb", extratags=[(281, 3, 3, (4095,) * 3, True)]
    )
    assert pixels(done)[0, :, 2].tolist() == expected
    done = yield packed(folder / "b.tif", levels)
    assert pixels(done)[0, :, 0].tolist() == expected
    done = yield tiff(folder / "d.tif", levels, extratags=[(281, 3, 1, 4095 - 7, True)])  # the highest that occurs
    assert pixels(done)[0, :, 0].tolist() == levels[0].tolist()


def packed(path, levels):
    """A TIFF with two numbers of 12 bits in three bytes."""
    pairs = levels.reshape(-1, 2).tolist()
    data = b"".join((first << 12 | second).to_bytes(3) for first, second in pairs)
    size = {
        256: levels.shape[1],
        257: len(levels),
        258: 12,
        259: 1,
        262: 1,
        273: 122,
        277: 1,
        278: len(levels),
        279: len(data),
    }
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in size.items())
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(size)) + tags + bytes(4) + data)
    return path


@row("Grey TIFF whose 0 is white, of up to 8 bits; of 16 bits little-endian")
def white_is_zero(folder):
    for dtype, orders in ((np.uint8, "<>"), (np.uint16, "<")):
        for order, compression in product(orders, (None, "zlib")):
            array = noise(24, 32, dtype=dtype)
            options = {"photometric": "miniswhite", "byteorder": order, "compression": compression}
            done = yield tiff(folder / "a.tif", array, **options)
            assert np.array_equal(pixels(done)[..., 0], np.iinfo(dtype).max - array)


@row("Grey TIFF of signed 16 bits")
def signed(folder):
    for order in "<>":
        for compression in (None, "zlib"):
            levels = np.array([[0, 1, 16384, 32767]], np.int16)
            done = yield tiff(folder / "a.tif", levels, byteorder=order, compression=compression)
            assert pixels(done)[0, :, 0].tolist() == [0, 2, 32769, 65535]


@row("Grey TIFF of 32 bits: signed, or little-endian")
def thirty_two_bits(folder):
    for dtype, orders in ((np.uint32, "<"), (np.int32, "<>")):
        most = np.iinfo(dtype).max
        for order, compression in product(orders, (None, "zlib")):
            levels = np.array([[0, most // 4, most]], dtype)
            done = yield tiff(folder / "a.tif", levels, byteorder=order, compression=compression)
            assert pixels(done)[0, :, 0].tolist() == [0, 16384, 65535]
        done = yield tiff(folder / "b.tif", np.array([[0, 300, 65535]], dtype), extratags=[(281, 3, 1, 65535, True)])
        assert pixels(done)[0, :, 0].tolist() == [0, 300, 65535]


@row("TIFF of 32 bits that would be black, or numbers below 0")
def no_white(folder):
    for dtype in (np.uint32, np.int32):
        yield tiff(folder / "a.tif", np.array([[0, 300, 65535]], dtype))
    for dtype in (np.int16, np.int32):
        yield tiff(folder / "b.tif", np.array([[-7, 30_000]], dtype))
    yield tiff(folder / "c.tif", np.array([[5000, 7]], np.uint16), extratags=[(281, 3, 1, 4095, True)])


@row("TIFF of signed 8 bits; of grey with alpha, 16 bits or planes; of 8 bits in 5 planes")
def refused_kinds(folder):
    yield tiff(folder / "a.tif", np.array([[-60, 60]], np.int8))
    yield tiff(
        folder / "b.tif", noise(24, 32, 2, dtype=np.uint16), photometric="minisblack", extrasamples=["unassalpha"]
    )
    for number, compression in product((2, 5), (None, "zlib")):
        kind, extra = ("rgb", ["unassalpha", "unspecified"]) if number == 5 else ("minisblack", ["unassalpha"])
        options = {"photometric": kind, "extrasamples": extra, "compression": compression}
        yield tiff(folder / "c.tif", noise(number, 24, 32), planarconfig="separate", **options)


@row("TIFF of other kinds, such as 10 bits, big-endian unsigned 32, RGB of floats")
def other_tiffs(folder):
    yield tiff(folder / "a.tif", DEEP[..., 0], photometric="miniswhite", byteorder=">")
    yield tiff(folder / "b.tif", np.array([[0, 7]], np.uint32), byteorder=">")
    yield tiff(folder / "c.tif", np.ones((24, 32, 3), np.float32), photometric="rgb")


@row("Grey TIFF of floats")
def floats(folder):
    for order in "<>":
        for compression in (None, "zlib"):
            for values, photometric, expected in (
                ([0, 0.5, 1], "minisblack", [0, 128, 255]),
                ([0, 5, 10], "miniswhite", [255, 127, 0]),
            ):
                array = np.array([values], np.float32)
                done = yield tiff(
                    folder / "a.tif", array, byteorder=order, compression=compression, photometric=photometric
                )
                assert pixels(done)[0, :, 0].tolist() == expected


@row("TIFF of 16 bits, CMYK or with premultiplied alpha")
def sixteen_bits_lost(folder):
    done = yield tiff(folder / "a.tif", noise(24, 32, 4, dtype=np.uint16), photometric="separated")
    assert pixels(done).dtype == np.uint8
    done = yield tiff(
        folder / "b.tif", noise(24, 32, 4, dtype=np.uint16), photometric="rgb", extrasamples=["assocalpha"]
    )
    assert pixels(done).dtype == np.uint8 and "8 of 16 bits" in done.left_out


@row("Animated GIF, WebP, PNG, AVIF; TIFF of several pages")
def animated(folder):
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    names = ["a.gif", "a.webp", "a.png", "a.tif"] + ["a.avif"] * ("AVIF" in Image.SAVE)
    for name in names:
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
        done = yield folder / name
        assert np.abs(pixels(done)[9, 9].astype(int) - [255, 0, 0]).max() <= 5
        assert getattr(Image.open(done.target), "n_frames", 1) == 1 and "all frames or pages" in done.left_out


def mpo(path, second):
    Image.fromarray(COLOUR).save(path, "MPO", save_all=True, append_images=[second])
    return path


@row("MPO (stereo, or previews behind the photograph)")
def stereo(folder):
    done = yield mpo(folder / "a.jpg", Image.new("RGB", (16, 12)))
    with Image.open(done.target) as image:
        assert (image.format, image.size) == ("JPEG", (32, 24))


@row("Ultra HDR (JPEG with a gain map)")
def ultra_hdr(folder):
    path = mpo(folder / "a.jpg", Image.new("L", (8, 6), 99))
    gain = b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    segment = b"http://ns.adobe.com/xap/1.0/\0" + gain
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    assert b"MPF\0" in path.read_bytes()
    done = yield path
    assert "the gain map" in done.left_out and b"hdrgm" not in done.target.read_bytes()
    assert Image.open(done.target).format == "JPEG" and Image.open(done.target).size == (32, 24)


@row("AVIF, JPEG 2000, PPM, QOI, TGA")
def others(folder):
    qoi = ["a.qoi"] * ("QOI" in Image.SAVE)  # since Pillow 12
    for name in ["a.jp2", "a.ppm", "a.tga", *qoi] + ["a.avif"] * ("AVIF" in Image.SAVE):
        source = saved(folder / name)
        done = yield source
        assert bulk.plan_files(source)[0][1].suffix == ".png"
        assert np.array_equal(pixels(done), image_files.load_image_u8(source))


@row("HEIC")
def heic(folder):
    for brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        (folder / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(400))
        yield folder / "a.heic"


@row("JPEG XL")
def jpeg_xl(folder):
    for start in (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"):
        (folder / "a.jxl").write_bytes(start + bytes(400))
        yield folder / "a.jxl"


def with_preview(path, *, photometric="rgb", subfiletype=1, tags=(), inside=1):
    """A TIFF whose first picture is small, and the photograph in a folder of its own or on a later page."""
    with tifffile.TiffWriter(path) as file:
        extra = [(271, 2, 0, "Camera & Sons", True), *tags]
        file.write(
            COLOUR, photometric=photometric, subifds=inside, subfiletype=subfiletype, extratags=extra, metadata=None
        )
        file.write(noise(240, 320, 3), photometric="rgb", metadata=None)
    return path


@row("A camera's raw file: DNG, NEF, CR2, ARW, CR3, RAF, ORF, RW2")
def raw(folder):
    version = (50706, 1, 4, (1, 4, 0, 0), True)
    for name in ("a.dng", "a.tif", "a.tiff"):
        yield with_preview(folder / name, tags=[version])
        yield saved_as_dng(folder / name)
    for name in ("a.nef", "a.arw", "b.tif"):
        yield with_preview(folder / name)
    plain = tiff(folder / "plain.tif", COLOUR, photometric="rgb").read_bytes()
    for name, data in {
        "a.cr2": b"II*\0\x10\0\0\0CR\x02\0" + plain[12:], "a.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        "a.raf": b"FUJIFILMCCD-RAW 0201FF", "a.orf": b"IIRO\x08\0\0\0", "a.rw2": b"IIU\0\x18\0\0\0",
    }.items():  # fmt: skip
        (folder / name).write_bytes(data + bytes(400))
        done = yield folder / name
        assert "develop it first" in done.problem


def saved_as_dng(path):
    """The photograph itself stands first, as numbers behind a colour filter."""
    return tiff(path, noise(24, 32, dtype=np.uint16), photometric=32803, extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])


@row("TIFF with a preview in front")
def preview(folder):
    yield with_preview(folder / "a.tif", inside=0)
    yield with_preview(folder / "b.tif", subfiletype=0)
    done = yield tiff(folder / "c.tif", COLOUR, photometric="rgb", extratags=[(255, 3, 1, 2, True)])
    assert "a small preview" in done.problem


@row("PSD, EPS, ICO, big-endian BigTIFF and others")
def unread(folder):
    saved(folder / "a.ico")
    yield folder / "a.ico"
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    yield folder / "a.eps"
    size = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 24, 32, 8, 3)
    (folder / "a.psd").write_bytes(size + bytes(12) + bytes(2) + COLOUR.tobytes())
    yield folder / "a.psd"
    yield tiff(folder / "a.tif", COLOUR, photometric="rgb", bigtiff=True, byteorder=">")


@row("More than 179 megapixels, or 1.07 GB when decoded")
def too_large(folder):
    for width, depth, kind in ((60_000, 8, 2), (13_000, 16, 6)):
        head = b"IHDR" + struct.pack(">IIBBBBB", width, width, depth, kind, 0, 0, 0)
        empty = b"IDAT" + zlib.compress(b"")
        chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, empty, b"IEND")]
        (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        done = yield folder / "a.png"
        assert "too large" in done.problem


def test_a_tiff_with_smaller_copies_of_itself_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOUR, photometric="rgb", subifds=1, metadata=None)
        file.write(COLOUR[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(image_files.load_image_u8(tmp_path / "a.tif"), COLOUR)
