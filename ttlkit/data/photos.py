"""Photographs with all that belongs to them: 8 or 16 bits, grey or colour, alpha, EXIF block and colour profile."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from ttlkit.data import image_files

DEEP = ("PNG", "TIFF")  # formats that hold 16 bits
CLEAR = ("PNG", "TIFF", "WEBP")  # formats that hold an alpha channel
LONGEST_EXIF = 65_000  # bytes that fit into a JPEG
# What a TIFF says about its pixels is no property of the photograph: sizes, strips, tiles, compression, ICC profile.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 317, 320, 322,
           323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 529, 530, 531, 532, 34675}  # fmt: skip
_OTHER_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


@dataclass(frozen=True)
class Photo:
    """A photograph, turned upright. `pixels` (H, W, 3) RGB and `alpha` (H, W, 1): uint8 or uint16, both the same."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False  # the file has no colour; neither shall what is written
    exif: bytes = b""  # as in a JPEG, 'Exif' in front, orientation reset
    icc: bytes = b""

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """The same photograph with other pixels of the same shape and type."""
        return replace(self, pixels=pixels)


def load_photo(path: str | Path) -> Photo:
    """Read any image file, EXIF orientation applied; of several frames or pages the first.

    16 bits stay where a PNG or TIFF is grey without alpha, RGB or RGBA; everything else becomes 8 bits as in
    `image_files.load_image_u8`, but keeps its alpha. Raises ImageError, which names the file.
    """
    with image_files.open_file(path) as file, image_files.naming(path):
        image_files.verify(file)
        with image_files.open_header(file) as image:
            deep = image_files.bits_of(image) == 16 and (image.mode.startswith("I;16") or _swapped(image) is not None)
            image.load()
            orientation = image_files.orientation_of(image)
            exif = _exif(image)
            icc, clear = image.info.get("icc_profile") or b"", image.info.get("transparency")
            grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
            alpha = None
            if deep:
                pixels = np.asarray(image).astype(np.uint16)
                if image.mode.startswith("RGB"):
                    pixels = pixels << 8 | _low_bytes(file)
                pixels = np.atleast_3d(pixels)
                if clear is not None and pixels.shape[2] < 4:
                    alpha = np.where((pixels == clear).all(2, keepdims=True), 0, 65535).astype(np.uint16)
                elif pixels.shape[2] == 4:
                    alpha = pixels[..., 3:]
                pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
            elif image.has_transparency_data and not image.mode.startswith("I"):
                both = np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
                pixels, alpha = both[..., :3], both[..., 3:]
            else:
                pixels = image_files.to_rgb_u8(image)
    alpha = None if alpha is None else image_files.turned(alpha, orientation)
    return Photo(image_files.turned(pixels, orientation), alpha, grey, exif, icc)


def _swapped(image: Image.Image) -> list | None:
    """Tiles of Pillow's lazy RGB(A) image that would decode the other byte of 16 bits; None where that is unknown."""
    tiles = []
    for tile in getattr(image, "tile", []):
        raw, *more = (tile.args,) if isinstance(tile.args, str) else tile.args
        order = raw.removeprefix(image.mode)
        if image.mode not in ("RGB", "RGBA") or order not in _OTHER_BYTE:
            return None
        tiles.append(tile._replace(args=(image.mode + _OTHER_BYTE[order], *more)))
    return tiles or None


def _low_bytes(file: BinaryIO) -> np.ndarray:
    """The low bytes of 16-bit colour: Pillow decodes the high ones alone, unless told that the byte order differs."""
    with image_files.open_header(file) as image:
        image.tile = _swapped(image) or []  # type: ignore[attr-defined]
        return np.asarray(image)


def _exif(image: Image.Image) -> bytes:
    """The EXIF block with its orientation reset, since it has been applied; b'' where it is missing or damaged."""
    try:
        exif = image.getexif()
        for tag in _LAYOUT & set(exif):
            del exif[tag]
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        return exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001 - the pixels are whole, whatever is wrong with the block
        return b""


def save_photo(path: str | Path, photo: Photo) -> None:
    """Write a photograph in its suffix's format, whole or not at all, with all of it that the format can hold.

    16 bits stay in PNG and TIFF, alpha in PNG, TIFF and WebP (elsewhere it is laid over white), the colour profile
    where it fits what is written (one for CMYK does not). Errors as `image_files.save_image`.
    """
    format = image_files.FORMATS.get(Path(path).suffix.lower(), "")
    pixels, alpha = photo.pixels, photo.alpha
    if alpha is not None and format not in CLEAR:
        pixels, alpha = _over_white(pixels, alpha), None
    pixels = _grey(pixels) if photo.grey else pixels
    channels = pixels if alpha is None else np.concatenate([pixels, alpha], 2)
    icc = photo.icc if photo.icc[16:20] == (b"GRAY" if photo.grey else b"RGB ") else b""
    if channels.dtype == np.uint16 and format in DEEP:
        with image_files.writing(path) as file:
            (_write_png if format == "PNG" else _write_tiff)(file, channels, photo.exif, icc)
        return
    if channels.dtype == np.uint16:
        channels = _in_bands(channels, lambda band: np.round(band / 257).astype(np.uint8))
    exif = photo.exif if format != "JPEG" or len(photo.exif) <= LONGEST_EXIF else b""
    options = {name: value for name, value in (("exif", exif), ("icc_profile", icc)) if value}
    image_files.save_image(path, channels[..., 0] if channels.shape[2] == 1 else channels, **options)


def _bands(image: np.ndarray) -> list[np.ndarray]:
    """The same picture, a few rows at a time: copies of a whole one of 50 megapixels, as floats, would be gigabytes."""
    rows = max(1, (1 << 18) // image.shape[1])
    return [image[top : top + rows] for top in range(0, len(image), rows)]


def _in_bands(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.concatenate([change(band) for band in _bands(image)])


def _grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) to its luma (H, W, 1), rounded."""
    return _in_bands(pixels, lambda band: np.round(image_files.to_grey(band)).astype(pixels.dtype)[..., None])


def _over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    white = np.float32(np.iinfo(pixels.dtype).max)
    both = np.concatenate([pixels, alpha], 2)
    return _in_bands(both, lambda b: np.round(white + (b[..., :3] - white) * (b[..., 3:] / white)).astype(pixels.dtype))


def _write_png(file: io.BytesIO, channels: np.ndarray, exif: bytes, icc: bytes) -> None:
    """A PNG of 16 bits, (H, W, 1 to 4) uint16: Pillow writes such only in grey (ISO/IEC 15948), pypng no EXIF block."""

    def chunk(name: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    height, width, depth = channels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[depth], 0, 0, 0))
    if icc:
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))
    if exif:
        chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    packer = zlib.compressobj()
    for band in _bands(channels):
        data = band.astype(">u2").view(np.uint8).reshape(-1, width * depth * 2)
        lines = np.empty((len(data), 1 + data.shape[1]), np.uint8)
        lines[:, 0], lines[:, 1:] = 1, data  # filter 1: each byte less the same one of the pixel to its left
        lines[:, 1 + 2 * depth :] -= data[:, : -2 * depth]
        chunk(b"IDAT", packer.compress(lines.tobytes()))
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")


def _write_tiff(file: io.BytesIO, channels: np.ndarray, exif: bytes, icc: bytes) -> None:
    """A TIFF of 16 bits, (H, W, 1 to 4) uint16, deflated (TIFF 6.0).

    Pillow writes such only in grey; tifffile writes them, but not the folder of its own that most EXIF tags lie in.
    """
    height, width, depth = channels.shape
    strips = []
    for band in _bands(channels):
        steps = band.copy()
        steps[:, 1:] -= band[:, :-1]  # predictor 2: each sample less the one to its left
        strips.append(zlib.compress(steps.astype("<u2").tobytes()))
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if exif:
        block = Image.Exif()
        block.load(exif)
        for tag in block:
            tags[tag] = block.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else block[tag]
    tags.tagtype[273] = tags.tagtype[279] = TiffTags.LONG
    lengths = tuple(len(strip) for strip in strips)
    starts = tuple(int(start) for start in np.cumsum((0, *lengths[:-1])))
    for tag, value in {
        256: width, 257: height, 258: (16,) * depth, 259: 8, 262: 2 if depth > 2 else 1, 273: starts, 277: depth,
        278: len(_bands(channels)[0]), 279: lengths, 284: 1, 317: 2,
    }.items():  # fmt: skip
        tags[tag] = value
    if depth in (2, 4):
        tags[338] = 2  # an alpha that the colours are not multiplied by
    if icc:
        tags.tagtype[34675] = TiffTags.UNDEFINED
        tags[34675] = icc
    tags.save(file)
    for strip in strips:
        file.write(strip)
