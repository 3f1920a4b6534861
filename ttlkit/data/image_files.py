"""Read, write and convert images: arrays (H, W, 3), RGB, float32 in [0, 1] unless `_u8` says uint8."""

from __future__ import annotations

import io
import math
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from ttlkit.files import shown, whole

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP"}
FORMATS = {f".{name}": format for name, format in FORMATS.items()}
SUFFIXES = tuple(FORMATS)
BEST: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
MOST_PIXELS = 178_956_970  # Pillow's own limit; kept here too, because any program may lift Pillow's
DECODER = 2  # raise it when `load_image_u8` returns other pixels than before: caches of decoded images go by it
# What a TIFF says about its pixels is no property of the photograph: sizes, strips, tiles, compression, ICC profile.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 317, 320, 322,
           323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 529, 530, 531, 532, 34675}  # fmt: skip
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class ImageError(ValueError):
    """An image cannot be used; the message names the file and the way out."""


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
    with naming(path):
        if file.read(8) == b"\x89PNG\r\n\x1a\n":
            with _opened(file) as image:
                image.verify()  # the checksum of the pixels, which Pillow compares only when asked to
        with _opened(file) as image:
            stored = getattr(image, "tag_v2", {}).get(ExifTags.Base.Orientation, 1)  # Pillow turns TIFFs
            raw = _raw_mode(image)
            named = re.match(r"(?!BGR|1)\w+;(\d+)", raw)  # BGR;15 counts all three channels
            bits = int(named[1]) if named else {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)
            image.load()
            orientation, exif = _exif(image)
            if image.mode.startswith("I"):
                channels = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)[..., None]
            elif re.fullmatch("RGBA?;16[BLN]", raw):
                channels = np.asarray(image).astype(np.uint16) << 8 | _low_bytes(file)
            else:
                channels = _eight_bits(image)
            clear = image.info.get("transparency")
            if clear is not None and channels.dtype == np.uint16 and channels.shape[2] < 4:
                seen = (channels != clear).any(2, keepdims=True)
                channels = np.concatenate([channels, seen * np.uint16(65535)], 2)
            channels = turned(channels, orientation)
            return Photo(
                np.ascontiguousarray(channels[..., :3]) if channels.shape[2] > 2 else channels[..., [0, 0, 0]],
                channels[..., -1:] if channels.shape[2] in (2, 4) else None,
                image.mode[:1] in "1LIF" and image.mode != "LAB",
                exif,
                image.info.get("icc_profile") or b"",
                image.mode,
                bits,
                stored if stored in range(2, 9) else orientation,
            )


@contextmanager
def _opened(file: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """Pillow's lazy image: the header is read, the size checked, and no warning gets out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(0)
        with Image.open(file) as image:
            if (pixels := image.width * image.height) > MOST_PIXELS:
                size = f"{image.width}x{image.height}"
                raise Image.DecompressionBombError(f"{size} = {pixels} pixels, at most {MOST_PIXELS}")
            if image.format == "EPS":  # Pillow would start Ghostscript on it
                raise ImageError("a PostScript drawing, not an image; convert it")
            yield image


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the pixels stand in the file that has not been loaded yet, such as 'RGB;16B': the mode hides the 16."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _exif(image: Image.Image) -> tuple[int, bytes]:
    """EXIF orientation, 1 to 8, and the block with that reset; 1 and b'' where it is missing or damaged."""
    orientation, block = 1, b""
    with suppress(Exception):  # the pixels are whole, whatever is wrong with the block
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        for tag in _LAYOUT & set(exif):
            del exif[tag]
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        block = exif.tobytes() if len(exif) else b""
    return orientation if orientation in range(1, 9) else 1, block


def _low_bytes(file: BinaryIO) -> np.ndarray:
    """The low bytes of 16-bit colour: Pillow decodes the high ones alone, unless told that the byte order differs."""
    with _opened(file) as image:
        raw = _raw_mode(image)
        raw = raw[:-1] + _OTHER_ORDER[raw[-1]]
        rests = [() if isinstance(tile.args, str) else (tile.args or ())[1:] for tile in image.tile]
        image.tile = [tile._replace(args=(raw, *rest)) for tile, rest in zip(image.tile, rests, strict=True)]
        return np.asarray(image)


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Pixels of a loaded picture, not turned: uint8 RGB (H, W, 3), RGBA (H, W, 4) where some of it is transparent."""
    mode = "RGBA" if image.has_transparency_data and image.mode != "F" else "RGB"
    out = np.empty((image.height, image.width, len(mode)), np.uint8)
    if image.mode == "F":
        values = np.asarray(image)
        highest = max(1.0, float(np.max(values, where=np.isfinite(values), initial=0)))
    for rows in bands(image.height, image.width):
        band = image.crop((0, rows.start, image.width, rows.stop))
        if band.mode == "F":
            out[rows] = to_u8(np.nan_to_num(np.asarray(band) / highest))[..., None]
            continue
        if band.mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            band = ImageCms.profileToProfile(band, *profiles, outputMode="RGB")  # type: ignore[assignment]
        elif band.mode == "La":
            band = band.convert("LA")
        out[rows] = np.asarray(band if band.mode == mode else band.convert(mode))
    return out


def bands(height: int, width: int) -> list[slice]:
    """Rows to work on at a time: several copies of a picture of 100 megapixels would be gigabytes."""
    rows = max(1, (1 << 18) // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


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
    options = BEST.get(FORMATS[suffix], {}) | options
    with writing(path) as encoded:  # writing to a file, Pillow takes a write cut short by a full disk for a whole one
        Image.fromarray(to_u8(image)).save(encoded, FORMATS[suffix], **options)


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


def contact_sheet(files: Sequence[tuple[Path, Path]], side: int = 300, columns: int = 4) -> np.ndarray:
    """Pictures before and after, side by side in boxes of `side` pixels, `columns` pairs a row: uint8 (H, W, 3)."""
    gap, rows = 8, math.ceil(len(files) / columns)
    columns = min(columns, len(files))
    sheet = Image.new("RGB", (columns * (2 * side + gap), rows * (side + gap)), "white")
    for number, pair in enumerate(files):
        top, left = number // columns * (side + gap), number % columns * (2 * side + gap)
        for place, path in enumerate(pair):
            picture = Image.fromarray(load_image_u8(path))
            picture.thumbnail((side - 2, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + place * side, top))
    return np.asarray(sheet)


def recompress(image: np.ndarray, quality: int) -> np.ndarray:
    """Pass an image through JPEG in memory; quality 1 to 95; float32 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(to_u8(image)).save(buffer, "JPEG", quality=quality)
    return to_float(np.asarray(Image.open(buffer)))
