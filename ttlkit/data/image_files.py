"""Read, write and convert images: arrays (H, W, 3), RGB, float32 in [0, 1] unless `_u8` says uint8."""

from __future__ import annotations

import io
import math
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ttlkit.files import shown, whole

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP"}
FORMATS = {f".{name}": format for name, format in FORMATS.items()}
SUFFIXES = tuple(FORMATS)
MOST_PIXELS = 178_956_970  # Pillow's own limit; kept here too, because any program may lift Pillow's
DECODER = 1  # raise it when `load_image_u8` returns other pixels than before: caches of decoded images go by it
_SIXTEEN_BITS = np.round(np.arange(65536) / 257).astype(np.uint8)  # never a tie: 257 is odd


class ImageError(ValueError):
    """An image cannot be used; the message names the file and the way out."""


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty where the folder does not exist.

    Left out are hidden files and folders that are named like images. A link to nowhere is listed: reading it says so.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and not e.is_dir()]
    except OSError as error:
        raise ImageError(f"{shown(folder)}: cannot be listed ({error.strerror}); change its permissions") from None
    return sorted(folder / name for name in names if Path(name).suffix.lower() in SUFFIXES)


def load_image_u8(path: str | Path) -> np.ndarray:
    """Read any image file as uint8 (H, W, 3) RGB; of several frames or pages the first.

    EXIF orientation is applied, alpha laid over white, grey expanded, 16 bits scaled to 8 (grey rounds; of colour
    Pillow keeps the high byte, at most one level darker), floats divided by their maximum where it is above 1, CMYK
    and Lab converted. Colour profiles are ignored, as the published scores ignore them: two files of a pair may
    differ in nothing but the profile. Raises ImageError, which names the file, when it is missing, truncated, too
    large or not an image.
    """
    with open_file(path) as file:
        return decode_u8(file, path)


@contextmanager
def open_file(path: str | Path) -> Iterator[BinaryIO]:
    """An image file, open for reading; ImageError names it when it is missing, no file or locked."""
    name, file = shown(path), None
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):  # a pipe would wait for ever
            file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        nowhere = f" (a link to {shown(os.readlink(path))})" if os.path.islink(path) else ""
        raise ImageError(f"{name}: no such file{nowhere}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        words = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot be opened ({words}); check its name and permissions") from None
    if file is None:
        what = "a folder" if stat.S_ISDIR(kind) else "a device or a pipe"
        raise ImageError(f"{name}: is {what}, not an image")
    with file:
        yield file


def decode_u8(file: BinaryIO, path: str | Path) -> np.ndarray:
    """Decode an open file as `load_image_u8` does; `path` stands in the messages."""
    with naming(path):
        verify(file)
        with open_header(file) as image:
            image.load()
            # Several copies of a picture of 100 megapixels would be gigabytes: convert in bands, turn a view.
            return turned(to_rgb_u8(image), orientation_of(image))


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong in the decoding of a file becomes an ImageError that names it."""
    name = shown(path)
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that Pillow can read; remove or convert it") from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory; scale it down first") from None
    except Exception as error:  # noqa: BLE001 - for a damaged file Pillow raises nearly every kind there is
        words = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
        raise ImageError(f"{name}: unreadable ({words}); remove it or fetch it again") from None


def verify(file: BinaryIO) -> None:
    """Compare the checksum of a PNG's pixels: Pillow does so only when asked to."""
    if file.read(8) == b"\x89PNG\r\n\x1a\n":
        with open_header(file) as image:
            image.verify()


@contextmanager
def open_header(file: BinaryIO) -> Iterator[Image.Image]:
    """Pillow's lazy image: the header is read, the size checked, and no warning gets out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(0)
        try:
            image = Image.open(file)
        except Image.DecompressionBombError as error:
            raise ImageError(f"too large ({error}); scale it down first") from None
        with image:
            if image.width * image.height > MOST_PIXELS:
                pixels = f"{image.width}x{image.height} = {image.width * image.height} pixels, at most {MOST_PIXELS}"
                raise ImageError(f"too large ({pixels}); scale it down first")
            if image.format == "EPS":  # Pillow would start Ghostscript on it
                raise ImageError("a PostScript drawing, not an image; convert it")
            yield image


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the pixels are whole, whatever is wrong with the block
        return 1
    return value if value in range(1, 9) else 1


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, C) as the EXIF orientation, 1 to 8, says they are to be seen."""
    if orientation > 4:  # 5 to 8: rows and columns change places
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def to_rgb_u8(image: Image.Image) -> np.ndarray:
    """Pixels of a loaded picture of any mode, as `load_image_u8` describes them; not turned."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    scale = 1.0
    if image.mode == "F":
        values = np.asarray(image)
        scale = max(scale, float(np.max(values, where=np.isfinite(values), initial=0)))
    rows = max(1, (1 << 22) // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        out[top : top + rows] = _band_to_rgb_u8(band, scale)
    return out


def _band_to_rgb_u8(image: Image.Image, scale: float) -> np.ndarray:
    clear = image.info.get("transparency")
    if image.mode == "F":
        return np.repeat(to_u8(np.nan_to_num(np.asarray(image) / scale))[..., None], 3, axis=2)
    if image.mode.startswith("I"):  # Pillow would clip these at 255
        values = np.asarray(image)
        grey = _SIXTEEN_BITS[np.clip(values, 0, 65535)]
        return np.repeat(np.where(values == clear, 255, grey).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")  # type: ignore[assignment]
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or clear is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB") if image.mode != "RGB" else image)


@dataclass(frozen=True)
class ImageFacts:
    """What the header of an image file says; `problem` says in words why it cannot be read, '' if it can.

    `width` and `height` are those of the loaded image, its orientation (1 to 8, EXIF) applied; `bits` per channel.
    """

    path: Path
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    bits: int = 0
    orientation: int = 1
    alpha: bool = False
    frames: int = 1
    problem: str = ""

    @property
    def grey(self) -> bool:
        """True where the format has no colour; an RGB file may still look grey."""
        return self.mode[:1] in ("1", "L", "I", "F") and self.mode != "LAB"


def describe(path: str | Path) -> ImageFacts:
    """Facts from a file's header, without decoding; never raises for a bad file, but says so in `problem`.

    A truncated or damaged body shows only in `load_image_u8`, and so does an orientation after a PNG's pixels.
    """
    path = Path(path)
    try:
        with open_file(path) as file, open_header(file) as image:
            # A PNG without EXIF before its pixels would be decoded to look for one behind them.
            orientation = orientation_of(image) if image.format != "PNG" or "exif" in image.info else 1
            width, height = image.size
            if orientation > 4 and image.format != "TIFF":  # Pillow has turned a TIFF's size already
                width, height = height, width
            return ImageFacts(
                path,
                image.format or "",
                image.mode,
                width,
                height,
                bits_of(image),
                orientation,
                image.has_transparency_data,
                getattr(image, "n_frames", 1),
            )
    except UnidentifiedImageError:
        return ImageFacts(path, problem="not an image that Pillow can read")
    except ImageError as error:
        return ImageFacts(path, problem=str(error).removeprefix(f"{shown(path)}: "))
    except Exception as error:  # noqa: BLE001 - as in decode_u8
        return ImageFacts(path, problem=f"unreadable ({' '.join(str(error).split()) or type(error).__name__})")


def bits_of(image: Image.Image) -> int:
    """Bits per channel in the file: Pillow's mode alone does not tell RGB of 16 bits from RGB of 8."""
    if image.mode == "1":
        return 1
    tile = getattr(image, "tile", None)
    arguments = tile[0].args if tile else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    found = re.fullmatch(r"(?:1|L|LA|I|F|P|PA|RGB|RGBA|RGBa|RGBX|CMYK);(\d+).*", str(raw))
    if found:
        return int(found[1])
    return 16 if image.mode.startswith("I;16") else 32 if image.mode in ("I", "F") else 8


def load_image(path: str | Path) -> np.ndarray:
    """Read any image file as float32 (H, W, 3) in [0, 1]; errors as `load_image_u8`."""
    return to_float(load_image_u8(path))


def save_image(path: str | Path, image: np.ndarray, **options: Any) -> None:
    """Write an image (H, W, 3), float in [0, 1] or uint8, in its suffix's format; whole or not at all.

    JPEG has quality 95 without chroma subsampling, WebP is lossless; `options` are Pillow's and override that.
    Raises ImageError, which names the file, for an unknown suffix, a full disk, a folder that cannot be written to,
    or a size that the format cannot hold.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{shown(path)}: unknown image format '{Path(path).suffix}'; use one of {', '.join(SUFFIXES)}")
    best: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = best.get(FORMATS[suffix], {}) | options
    with writing(path) as encoded:  # writing to a file, Pillow takes a write cut short by a full disk for a whole one
        Image.fromarray(to_u8(image)).save(encoded, FORMATS[suffix], **options)


@contextmanager
def writing(path: str | Path) -> Iterator[io.BytesIO]:
    """A buffer whose content becomes the file at the end, whole or not at all; ImageError names the file."""
    try:
        with whole(path) as partial:
            yield (encoded := io.BytesIO())
            partial.write_bytes(encoded.getbuffer())
    except (OSError, ValueError) as error:  # ValueError: too wide for WebP or JPEG
        words = getattr(error, "strerror", None) or error
        raise ImageError(f"{shown(path)}: cannot be written ({words}); free space or choose another place") from None


def to_u8(image: np.ndarray) -> np.ndarray:
    """Float in [0, 1] to uint8, clipped and rounded (truncation would cost 0.5 level); uint8 as it is."""
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


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
