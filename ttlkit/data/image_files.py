"""Read, write and convert images: arrays (H, W, 3), RGB, float32 in [0, 1] unless `_u8` says uint8."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile, UnidentifiedImageError

from ttlkit.data import decoding
from ttlkit.data.decoding import ImageError as ImageError
from ttlkit.data.decoding import bands as bands
from ttlkit.files import shown, whole

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP"}
FORMATS = {f".{name}": format for name, format in FORMATS.items()}
SUFFIXES = tuple(FORMATS)
BEST: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}}
MOST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels: libjpeg's limit and libwebp's; the others hold more than we read
DECODER = 4  # raise it when `load_image_u8` returns other pixels than before: caches of decoded images go by it
# What a TIFF says about its pixels is no property of the photograph: sizes, strips, tiles, compression, ICC profile.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 317, 320, 322,
           323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 529, 530, 531, 532, 34675}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photograph, turned upright. `pixels` (H, W, 3) RGB and `alpha` (H, W, 1): both uint8 or both uint16."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False  # the file has no colour; neither shall what is written
    exif: bytes = b""  # as in a JPEG, 'Exif' in front, orientation reset
    icc: bytes = b""
    mode: str = ""  # of the file, as Pillow names it; so are the next two
    bits: int = 8  # of a channel
    orientation: int = 1  # 1 to 8, as EXIF has it
    left_out: str = ""  # what the file holds besides, in words

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """The same photograph with other pixels of the same shape and type."""
        return replace(self, pixels=pixels)

    def flat_u8(self) -> np.ndarray:
        """Its pixels as uint8, laid over white where they are transparent."""
        return to_u8(self.pixels if self.alpha is None else over_white(self.pixels, self.alpha))


# ---- reading -------------------------------------------------------------------------------------------------------


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty where the folder does not exist.

    Left out are hidden files and folders that are named like images. A link to nowhere is listed: reading it says so.
    """
    with naming(folder, "cannot be listed ({}); change its permissions"):
        found = sorted(Path(folder).iterdir()) if os.path.isdir(folder) else []
    return [p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and not p.is_dir()]


def load_image(path: str | Path) -> np.ndarray:
    """Read any image file as float32 (H, W, 3) in [0, 1]; errors as `load_image_u8`."""
    return to_float(load_image_u8(path))


def load_image_u8(path: str | Path) -> np.ndarray:
    """Read any image file as uint8 (H, W, 3) RGB: a `load_photo` on white paper, 16 bits rounded to 8.

    Colour profiles are ignored, as the published scores ignore them: two files of a pair may differ in nothing else.
    """
    return load_photo(path).flat_u8()


def load_photo(path: str | Path) -> Photo:
    """Read any image file with all that belongs to it; of several frames or pages the first.

    EXIF orientation is applied, grey expanded, floats divided by their maximum where it is above 1, CMYK and Lab
    converted. 16 bits and more become uint16 where the file is grey without alpha, or a PNG or TIFF in RGB or RGBA;
    everything else uint8. Raises ImageError, which names the file, when it is missing, truncated, too large or not
    an image.
    """
    with open_file(path) as file:
        return decode(file, path)


def open_file(path: str | Path) -> BinaryIO:
    """An image file, open for reading; ImageError names it when it is missing, no file or locked."""
    with naming(path, "cannot be opened ({}); check its name and permissions"):
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):  # a pipe would wait for ever
            raise ImageError(f"is {'a folder' if stat.S_ISDIR(kind) else 'a device or a pipe'}, not an image")
        return open(path, "rb")


@contextmanager
def naming(path: str | Path, otherwise: str = "unreadable ({}); remove it or fetch it again") -> Iterator[None]:
    """Whatever goes wrong with a file becomes an ImageError of one line that names it."""
    try:
        yield
        return
    except ImageError as error:
        problem = str(error)
    except UnidentifiedImageError:
        problem = "not an image that Pillow can read; remove or convert it"
    except FileNotFoundError:
        problem = "no such file" + (f" (a link to {shown(os.readlink(path))})" if os.path.islink(path) else "")
    except Image.DecompressionBombError as error:
        problem = f"too large ({error}); scale it down first"
    except MemoryError:
        problem = "too large for this machine's memory; scale it down first"
    except Exception as error:  # noqa: BLE001 - for a damaged file Pillow raises nearly every kind there is
        words = str(getattr(error, "strerror", None) or error or type(error).__name__)
        problem = otherwise.format(" ".join(words.split()))
    raise ImageError(f"{shown(path)}: {problem}")


def decode_u8(file: BinaryIO, path: str | Path) -> np.ndarray:
    """Decode an open file as `load_image_u8` does; `path` stands in the messages."""
    return decode(file, path).flat_u8()


def decode(file: BinaryIO, path: str | Path) -> Photo:
    """Decode an open file as `load_photo` does; `path` stands in the messages."""
    with naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoding.refuse_others(file)
        file.seek(0)
        is_png = file.read(8) == b"\x89PNG\r\n\x1a\n"
        try:
            return _decode(file, is_png)
        except Exception:
            sound, gone = decoding.without_text(file) if is_png else (file, "")
            if not gone:
                raise
        return replace(_decode(sound, is_png), left_out=f"what is damaged or too long in it ({gone})")


def _decode(file: BinaryIO, is_png: bool) -> Photo:
    if is_png:
        with _opened(file) as image:
            image.verify()  # the checksum of the pixels, which Pillow compares only when asked to
    with _opened(file) as image:
        mode, bits, tags = image.mode, decoding.bits(image), getattr(image, "tag_v2", {})
        white, stored = decoding.white_of(image), tags.get(ExifTags.Base.Orientation, 1)  # Pillow turns TIFFs
        wide = decoding.planes(file, image, white)
        raw = decoding.load(image) if wide is None else ""
        orientation, exif = _exif(image)
        left_out = ", ".join(filter(None, (decoding.more_in(image), _lacking_in(file, image))))
        clear, icc = image.info.get("transparency"), image.info.get("icc_profile")
        wide = decoding.sixteen_bits(image, raw, white) if wide is None else wide
        channels = decoding.eight_bits(image, raw) if wide is None else wide
    del image  # with its pixels, which take as much memory as ours
    if decoding.is_colour_of_16_bits(raw):
        with _opened(file) as again:
            decoding.add_low_bytes(again, channels, white)
    if mode[0] in "IF" and tags.get(262) == 0:  # the greater, the darker: Pillow heeds that up to 8 bits
        np.subtract(np.iinfo(channels.dtype).max, channels, out=channels)
    if clear is not None and wide is not None and channels.shape[2] < 4:
        seen = (channels != clear).any(2, keepdims=True)
        channels = np.concatenate([channels, seen * np.uint16(65535)], 2)
    channels = turned(channels, orientation)
    return Photo(
        channels[..., :3] if channels.shape[2] > 2 else channels[..., [0, 0, 0]],
        channels[..., -1:] if channels.shape[2] in (2, 4) else None,
        (mode[0] in "1LIF" and mode != "LAB") or channels.shape[2] < 3,
        exif,
        icc or b"",
        mode,
        bits,
        stored if stored in range(2, 9) else orientation,
        left_out,
    )


def _lacking_in(file: BinaryIO, image: Any) -> str:
    """What a loaded JPEG lacks although its end is marked, in words; ImageError where rows are missing.

    libjpeg fills those with grey and Pillow hides that it was warned of it. So a grey corner is worth a second look:
    more bytes in front of the end change the picture if some were missing, and are passed over if not.
    """
    if image.format not in ("JPEG", "MPO"):
        return ""
    tail = set(np.atleast_1d(image.getpixel((image.width - 1, image.height - 1))).tolist()) <= {127, 128}
    if not tail and "progressive" not in image.info:
        return ""
    with suppress(IndexError, OSError):  # without a structure that can be followed nothing is said
        file.seek(0)
        data, start = file.read(), 2
        while data[start + 1] != 0xDA:  # the first scan, behind the thumbnail
            start += 2 + int.from_bytes(data[start + 2 : start + 4]) if data[start + 1] != 0xFF else 1
        end = data.find(b"\xff\xd9", start)
        if tail:
            filler = bytes(range(1, 255))
            more = filler + b"".join(bytes([0xFF, 0xD0 + number]) + filler for number in range(8))  # restart markers
            with Image.open(io.BytesIO(data[:end] + more + data[end:]), formats=["JPEG"]) as longer:
                if ImageChops.difference(image, longer).getbbox(alpha_only=False):
                    raise ImageError("truncated: its last rows are missing; fetch it again")
        if "progressive" not in image.info:
            return ""
        still: dict[tuple[int, int], int] = {}  # bits that are to come, by component and coefficient
        scans = re.compile(rb"\xff\xda..[\1-\4]", re.DOTALL)
        for place, count in ((scan.end(), data[scan.end() - 1]) for scan in scans.finditer(data, start, end)):
            first, last, more_bits = data[place + 2 * count : place + 2 * count + 3]
            parts = product(data[place : place + 2 * count : 2], range(first, last + 1))
            still |= dict.fromkeys(parts, more_bits & 15)
        if still and (any(still.values()) or len(still) < 64 * len(image.getbands())):
            return "fine detail, whose parts of the file are missing"
    return ""


@contextmanager
def _opened(file: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """Pillow's lazy image: the header is read and checked."""
    file.seek(0)
    with Image.open(file) as image:
        decoding.check(image)
        yield image


def _exif(image: Image.Image) -> tuple[int, bytes]:
    """EXIF orientation, 1 to 8, and the block with that reset; 1 and b'' where it is missing or damaged."""
    orientation, block = 1, b""
    with suppress(Exception):  # the pixels are whole, whatever is wrong with the block
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        exif.bigtiff = False  # or the block would have a header that no other format knows
        for tag in _LAYOUT & set(exif):
            del exif[tag]
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        block = exif.tobytes() if len(exif) else b""
    return orientation if orientation in range(1, 9) else 1, block


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, C) as the EXIF orientation, 1 to 8, says they are to be seen."""
    if orientation > 4:  # 5 to 8: rows and columns change places
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is seen of (H, W, 3) with `alpha` (H, W, 1), both uint8 or uint16, on white paper; rounded."""
    most = np.iinfo(pixels.dtype).max
    out = np.empty_like(pixels)
    for rows in bands(*pixels.shape[:2]):
        cover = alpha[rows].astype(np.uint32)
        out[rows] = (pixels[rows] * cover + most * (most - cover) + most // 2) // most
    return out


# ---- writing -------------------------------------------------------------------------------------------------------


def save_image(path: str | Path, image: np.ndarray, **options: Any) -> None:
    """Write an image (H, W, 3), float in [0, 1] or uint8, in its suffix's format; whole or not at all.

    JPEG has quality 95 without chroma subsampling, WebP is lossless; `options` are Pillow's and override that.
    Raises ImageError, which names the file, for an unknown suffix, a full disk, a folder that cannot be written to,
    or a size that the format cannot hold.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{shown(path)}: unknown image format '{Path(path).suffix}'; use one of {', '.join(SUFFIXES)}")
    format, (height, width) = FORMATS[suffix], image.shape[:2]
    if max(height, width) > (most := MOST_SIDE.get(format, height + width)):
        raise ImageError(f"{shown(path)}: {format} holds {most} pixels a side, not {width}x{height}; use PNG or TIFF")
    options = BEST.get(format, {}) | options
    with writing(path) as encoded:  # writing to a file, Pillow takes a write cut short by a full disk for a whole one
        Image.fromarray(to_u8(image)).save(encoded, format, **options)


@contextmanager
def writing(path: str | Path) -> Iterator[io.BytesIO]:
    """A buffer whose content becomes the file at the end, whole or not at all; ImageError names the file."""
    with naming(path, "cannot be written ({}); free space or choose another place"), whole(path) as partial:
        yield (encoded := io.BytesIO())
        partial.write_bytes(encoded.getbuffer())


# ---- converting ----------------------------------------------------------------------------------------------------


def to_u8(image: np.ndarray) -> np.ndarray:
    """Float in [0, 1], clipped, or uint16 to uint8, rounded (truncation would cost 0.5 level); uint8 as it is."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image // 257 + (image % 257 > 128)).astype(np.uint8)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to float32 in [0, 1]; floats as they are."""
    return image if image.dtype.kind == "f" else image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma (H, W), float32 (float64 stays): 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, full range)."""
    red, green, blue = np.moveaxis(image if image.dtype == np.float64 else image.astype(np.float32, copy=False), -1, 0)
    return 0.299 * red + 0.587 * green + 0.114 * blue  # no matrix product: its last bits depend on the processor


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bicubic resize of float (H, W, 3) to (height, width, 3), float32 in [0, 1]."""
    picture = Image.fromarray(to_u8(image)).resize((width, height), Image.Resampling.BICUBIC)
    return to_float(np.asarray(picture))


def recompress(image: np.ndarray, quality: int) -> np.ndarray:
    """Pass an image through JPEG in memory; quality 1 to 95; float32 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(to_u8(image)).save(buffer, "JPEG", quality=quality)
    return to_float(np.asarray(Image.open(buffer)))
