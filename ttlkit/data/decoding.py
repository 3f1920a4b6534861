"""From image files to numbers, where Pillow alone would be wrong: files that are refused, tags of TIFFs, 16 bits."""

import ctypes
import io
import logging
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImagePalette, PngImagePlugin, TiffImagePlugin

READ = ("PNG", "JPEG", "MPO", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000", "PPM", "QOI", "TGA")  # by Pillow
MOST_PIXELS = 178_956_970  # Pillow's own limit; kept here too, because any program may lift Pillow's
MOST_BYTES = 1 << 30  # decoded: as many as MOST_PIXELS take in RGB of 16 bits
RAW = "a camera's raw file; develop it first, e.g. darktable-cli IN OUT.tif"
REFUSED = {  # by the first bytes of a file
    rb"....ftypcrx |FUJIFILMCCD-RAW|IIU\0|II[RS]O|IIRS|MMOR|FOVb|\0MRM|II\*\0....(CR|II)": RAW,
    rb"MM\0\+": "a big-endian BigTIFF, not read here; save it as an ordinary TIFF",
    rb"....ftyp(?!.{0,48}avi[fs])": "HEIC or a film, not read here; convert it first, e.g. heif-convert IN OUT.png",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL, which is not read here; convert it first, e.g. djxl IN OUT.png",
}
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_GREY_ALPHA = "LA;16B"  # in a PNG; what Pillow reads as RGBA are then the two bytes of grey and the two of alpha
CUT = "truncated: strips or tiles are missing; fetch it again"  # they would be read as black, grey or noise

# What these print of a damaged file names no file; what we raise does.
for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # only where nobody listens, words would go to stderr
with suppress(AttributeError, OSError):  # AttributeError: libtiff cannot be reached, and goes on printing
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # as Pillow does with libtiff's warnings


class ImageError(ValueError):
    """An image cannot be used; the message names the file and the way out."""


# ---- what is refused, left out or put right before Pillow decodes --------------------------------------------------


def refuse_others(file: BinaryIO) -> None:
    """ImageError where Pillow would read a preview only, as in a camera's raw file, or nothing at all."""
    file.seek(0)
    head = file.read(64)
    for start, problem in REFUSED.items():
        if re.match(start, head, re.DOTALL):
            raise ImageError(problem)
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0"):
        return
    first = _tags(file, head)
    if 50706 in first or first.get(262) in (32803, 34892):  # DNGVersion; pixels behind a colour filter, or linear
        raise ImageError(RAW)
    pictures = [first, *(_tags(file, head, offset) for offset in np.atleast_1d(first.get(330, [])))]
    sizes = [tags.get(256, 0) * tags.get(257, 0) for tags in pictures]
    if first.get(254, 0) & 1 or first.get(255) == 2 or sizes[0] < max(sizes):
        raise ImageError(f"a small preview stands in front of the photograph, as in {RAW}")


def _tags(file: BinaryIO, head: bytes, offset: int = 0) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Of the first picture in a TIFF file, or of the one at `offset`."""
    found = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if head[2] == 43 else 8])  # 43: BigTIFF
    file.seek(offset or found.next)
    found.load(file)  # type: ignore[arg-type]
    return found


def without_text(file: BinaryIO) -> tuple[io.BytesIO, str]:
    """A PNG less its text and what is damaged but not needed for the pixels; names of the chunks that are gone.

    Pillow refuses a whole file for text of more than a megabyte, such as the history that editors write into XMP.
    """
    file.seek(0)
    kept, gone = io.BytesIO(), []
    kept.write(file.read(8))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        body = file.read(length + 4)
        damaged = zlib.crc32(name + body[:-4]) != int.from_bytes(body[-4:])
        needless = name[0] & 32 and name != b"tRNS"  # by its small first letter: the picture is whole without it
        if name in (b"tEXt", b"zTXt", b"iTXt") or (needless and (damaged or not _sound(name, body[:-4]))):
            gone.append(name.decode("latin-1"))
        else:
            kept.write(head + body)
    return kept, ", ".join(dict.fromkeys(gone))


def _sound(name: bytes, content: bytes) -> bool:
    """Whether Pillow can take in a needless chunk of a PNG; frames, which count, only make sense together."""
    try:
        if name not in (b"acTL", b"fcTL", b"fdAT"):
            PngImagePlugin.PngStream(io.BytesIO(content)).call(name, 0, len(content))
    except AttributeError:  # it does not look into such
        return True
    except Exception:  # noqa: BLE001 - any of them would cost the picture
        return False
    return True


def check(image: ImageFile.ImageFile) -> None:
    """ImageError where a picture that is not loaded yet is of a kind not read, DecompressionBombError if too large."""
    if image.format not in READ:
        raise ImageError(f"{image.format_description or image.format}, which is not read here; convert it to PNG")
    size, pixels = f"{image.width}x{image.height}", image.width * image.height
    if pixels > MOST_PIXELS:
        raise Image.DecompressionBombError(f"{size} = {pixels} pixels, at most {MOST_PIXELS}")
    taken = pixels * max(3, len(image.getbands())) * (2 if bits(image) > 8 else 1)
    if taken > MOST_BYTES:
        raise Image.DecompressionBombError(f"{size} decoded is {taken / 1e9:.2f} GB, at most {MOST_BYTES / 1e9:.2f} GB")
    if image.format == "TIFF":
        _check_kind(image)
        _check_strips(image)


def _check_kind(image: Any) -> None:
    """ImageError for kinds of TIFF that Pillow takes for others, and for planes that it cannot put together."""
    tags = image.tag_v2
    if bits(image) > 8:
        return
    if 2 in np.atleast_1d(tags.get(339, 1)):
        raise ImageError("signed numbers of 8 bits, which would be read as unsigned; save it with unsigned ones")
    if tags.get(284) == 2 and (len(image.getbands()) == 2 or tags.get(277, 1) > 4):
        raise ImageError("planes of grey with alpha, or more than 4; save it without planes (interleaved)")


def _check_strips(image: Any) -> None:
    """ImageError where strips or tiles of a TIFF, which is not loaded yet, are missing or hold less than they should.

    Pillow and libtiff refuse most of that themselves, but not too few, those at 0, and JPEG that ends too early.
    """
    tags, file = image.tag_v2, image.fp
    width, height = tags.get(256, 0), tags.get(257, 0)  # Pillow has turned its own already
    wide, high = tags.get(322, width) or 1, tags.get(323, min(tags.get(278, height), height)) or 1
    down, across = -(-height // high), -(-width // wide)
    needed = down * across * (len(image.getbands()) if tags.get(284) == 2 else 1)
    offsets, lengths = (np.atleast_1d(tags.get(tile, tags.get(strip, []))) for tile, strip in ((324, 273), (325, 279)))
    packing = tags.get(259)
    if packing != 6 and (len(offsets) < needed or offsets.min() < 8):  # 6: JPEG as TIFF once had it; 8: the header
        raise ImageError(CUT)
    if packing != 7:
        return
    for number, (offset, length) in enumerate(zip(offsets[:needed].tolist(), lengths.tolist(), strict=False)):
        file.seek(offset)
        part = file.read(length)
        rows = high if 323 in tags else min(high, height - number % down * high)  # the last strip may be lower
        with Image.open(io.BytesIO(part), formats=["JPEG"]) as jpeg:
            if jpeg.width < wide or jpeg.height < rows or b"\xff\xd9" not in part[-16:]:  # the end; some fill up
                raise ImageError(CUT)


def more_in(image: Image.Image) -> str:
    """What a file holds besides the picture that is read, in words; '' for nothing."""
    if b"hdrgm" in image.info.get("xmp", b""):
        return "the gain map, which brightens the picture on HDR screens"
    if getattr(image, "is_animated", False):  # which of a TIFF Pillow knows from its first page
        return "other views, or a gain map" if image.format == "MPO" else "all frames or pages but the first"
    return ""


def bits(image: ImageFile.ImageFile) -> int:
    """Of a channel in the file; the image has not been loaded yet."""
    if image.format == "TIFF":
        return int(np.max(image.tag_v2.get(258, 1)))  # type: ignore[attr-defined]
    named = re.match(r"(?!BGR|1)\w+;(\d+)", raw_mode(image))  # BGR;15 counts all three channels
    return int(named[1]) if named else {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)


def raw_mode(image: ImageFile.ImageFile) -> str:
    """How the pixels stand in the file that has not been loaded yet, such as 'RGB;16B': the mode hides the 16."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


# ---- pixels --------------------------------------------------------------------------------------------------------


def load(image: ImageFile.ImageFile, low: bool = False) -> str:
    """Have Pillow decode the pixels, told better where it would be wrong; returns how they stand in the file.

    `low`: of colour of 16 bits the low bytes. Pillow keeps the high ones alone, unless told that their order differs.
    """
    raw = told = raw_mode(image)
    tags: Any = getattr(image, "tag_v2", {})
    if tags and image.tile[0].codec_name == "libtiff":
        raw = told = re.sub("B(?=[SF]$)", "N", raw)  # libtiff puts numbers into the order of this machine
    elif raw == _GREY_ALPHA:
        told = "RGBA"
    elif raw == "RGBX" and tags.get(262) == 6:  # Pillow before 13 takes the three bytes of YCbCr for four
        raw, told = "YCbCr", "RGB"
    if low:
        told = raw[:-1] + _OTHER_ORDER[raw[-1]]
    if max(colours := tags.get(320, [256])) < 256:  # some write them as of 8 bits, and Pillow takes 255 for black
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    if told != raw_mode(image):
        rests = [tile.args[1:] if isinstance(tile.args, tuple) else () for tile in image.tile]
        image.tile = [tile._replace(args=(told, *rest)) for tile, rest in zip(image.tile, rests, strict=True)]
    image.load()
    if (depth := {"L;2": 2, "L;4": 4}.get(raw)) and "transparency" in image.info:  # of a PNG, as it stands in the file
        most = (1 << depth) - 1
        image.info["transparency"] = (image.info["transparency"] & most) * (255 // most)
    return raw


def planes(file: BinaryIO, image: ImageFile.ImageFile, white: int) -> np.ndarray | None:
    """Pixels of a TIFF that has 16 bits in planes, which Pillow takes for 8: uint16 (H, W, 3 or 4); None elsewhere."""
    tags, depth = getattr(image, "tag_v2", {}), len(image.getbands())
    if tags.get(284) != 2 or bits(image) != 16 or depth == 1:
        return None
    if image.mode not in ("RGB", "RGBA") or 1 in np.atleast_1d(tags.get(338, 0)):
        raise ImageError("16 bits in planes, not of RGB with plain alpha; save it without planes (interleaved)")
    import tifffile

    file.seek(0)
    page = tifffile.TiffFile(file).pages.first
    if len(page.databytecounts) < len(page.dataoffsets) or 0 in page.databytecounts:
        raise ImageError(CUT)
    return _scaled(np.moveaxis(page.asarray(), 0, 2)[..., :depth], white).astype(np.uint16)


def is_colour_of_16_bits(raw: str) -> bool:
    """By what `load` returns."""
    return bool(re.fullmatch("RGB[AX]?;16[BLN]", raw))


def sixteen_bits(image: Image.Image, raw: str, white: int) -> np.ndarray | None:
    """Pixels of a loaded picture, not turned: uint16 (H, W, 1 to 4); of colour the high bytes. None: it has 8 bits."""
    if image.mode[0] != "I" and raw != _GREY_ALPHA and not is_colour_of_16_bits(raw):
        return None
    depth, most = 2 if raw == _GREY_ALPHA else len(image.getbands()), 0
    out = np.empty((image.height, image.width, depth), np.uint16)
    for rows, band in _bands_of(image):
        numbers = np.asarray(band)
        if raw == _GREY_ALPHA:
            out[rows] = numbers.view(">u2")
        elif depth > 1:
            out[rows] = numbers.astype(np.uint16) << 8
        else:
            numbers = numbers.view(np.uint32) if white >= 1 << 31 else numbers
            most = max(most, int(numbers.max()))
            out[rows, :, 0] = _scaled(numbers, white)
    if white > 65535 and 0 < most <= 65535:
        raise ImageError(f"numbers up to {most}, but white would be {white}, so all is black; save it with 16 bits")
    return out


def add_low_bytes(image: ImageFile.ImageFile, channels: np.ndarray, white: int) -> None:
    """Complete what `sixteen_bits` made of colour; `image` is the same file, opened again."""
    load(image, low=True)
    for rows, band in _bands_of(image):
        channels[rows] = _scaled(channels[rows] | np.asarray(band), white)


def eight_bits(image: Image.Image, raw: str) -> np.ndarray:
    """Pixels of a loaded picture, not turned: uint8 RGB (H, W, 3), RGBA (H, W, 4) where some of it is transparent."""
    mode = "RGBA" if image.has_transparency_data and image.mode != "F" else "RGB"
    out = np.empty((image.height, image.width, len(mode)), np.uint8)
    if image.mode == "F":
        values = np.asarray(image)
        highest = max(1.0, float(np.max(values, where=np.isfinite(values), initial=0)))
    for rows, band in _bands_of(image):
        if band.mode == "F":
            out[rows] = np.round(np.clip(np.nan_to_num(np.asarray(band) / highest), 0, 1) * 255)[..., None]
            continue
        if band.mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            band = ImageCms.profileToProfile(band, *profiles, outputMode="RGB")  # type: ignore[assignment]
        elif raw == "YCbCr":
            band = Image.merge(raw, band.split())
        elif band.mode == "La":
            band = band.convert("LA")
        out[rows] = np.asarray(band if band.mode == mode else band.convert(mode))
    return out


def white_of(image: ImageFile.ImageFile) -> int:
    """The number that stands for white, by the tags of a TIFF; 65535 elsewhere.

    MaxSampleValue may be just the highest number that occurs: it is believed where it names a depth of bits.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if not tags:
        return 65535
    depth, signed = bits(image), 2 in np.atleast_1d(tags.get(339, 1))
    named = np.atleast_1d(tags.get(281, tags.get(341, 0)))[0]
    return int(named) if named in [2**n - 1 for n in range(8, depth)] else 2 ** (depth - signed) - 1


def _scaled(numbers: np.ndarray, white: int) -> np.ndarray:
    """Numbers from 0 to `white` as 0 to 65535, rounded; ImageError where there are others."""
    if numbers.min() < 0 or numbers.max() > white:
        found = f"numbers from {numbers.min()} to {numbers.max()}"
        raise ImageError(f"{found}, but black is 0 and white {white}; save it with 8 or 16 bits")
    return numbers if white == 65535 else (numbers.astype(np.int64) * 65535 + white // 2) // white


def bands(height: int, width: int) -> list[slice]:
    """Rows to work on at a time: several copies of a picture of 100 megapixels would be gigabytes."""
    rows = max(1, (1 << 18) // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _bands_of(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    for rows in bands(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))
