"""Photographs with all that belongs to them: 8 or 16 bits, grey or colour, alpha, EXIF block and colour profile."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags
from PIL.PngImagePlugin import putchunk

from ttlkit.data import image_files
from ttlkit.data.image_files import Photo as Photo
from ttlkit.data.image_files import load_photo as load_photo
from ttlkit.files import shown

LONGEST_PROFILE = 1 << 20  # bytes of a colour profile in a PNG, which Pillow reads no longer ones from
CLEAR = ("PNG", "TIFF", "WEBP")  # formats that hold an alpha channel
LONGEST_EXIF = 65_000  # bytes that fit into a JPEG


def save_photo(path: str | Path, photo: Photo) -> None:
    """Write a photograph in its suffix's format, whole or not at all, with all of it that the format can hold.

    16 bits stay in PNG and TIFF, alpha in PNG, TIFF and WebP (elsewhere it is laid over white), the colour profile
    where it fits what is written (one for CMYK does not), the EXIF block less what a JPEG has no room for. Errors as
    `image_files.save_image`, and ImageError where a PNG with that profile could not be read again.
    """
    format = image_files.FORMATS.get(Path(path).suffix.lower(), "")
    channels, alpha = photo.pixels, photo.alpha
    if alpha is not None and format not in CLEAR:
        channels, alpha = image_files.over_white(channels, alpha), None
    deep = channels.dtype == np.uint16 and format in ("PNG", "TIFF")
    grey = photo.grey and not (deep and format == "TIFF" and alpha is not None)  # Pillow could not read such a file
    if grey:
        rows = image_files.bands(*channels.shape[:2])
        luma = np.concatenate([np.round(image_files.to_grey(channels[band])) for band in rows])
        channels = luma.astype(channels.dtype)[..., None]
    icc = photo.icc if photo.icc[16:20] == (b"GRAY" if grey else b"RGB ") else b""
    if format == "PNG" and len(icc) > LONGEST_PROFILE:
        problem = f"its colour profile of {len(icc)} bytes is too long for most readers of PNG; save it as TIFF"
        raise image_files.ImageError(f"{shown(path)}: {problem}")
    layers = [channels] if alpha is None else [channels, alpha]
    if deep:
        with image_files.writing(path) as file:
            (_write_png if format == "PNG" else _write_tiff)(file, layers, photo.exif, icc)
        return
    channels = channels if alpha is None else np.concatenate(layers, 2)
    exif = _short(photo.exif) if format == "JPEG" else photo.exif
    options = {name: value for name, value in (("exif", exif), ("icc_profile", icc)) if value}
    image_files.save_image(path, channels[..., 0] if channels.shape[2] == 1 else channels, **options)


def _short(exif: bytes) -> bytes:
    """An EXIF block less its longest entries, such as a maker note, until it fits into a JPEG."""
    while len(exif) > LONGEST_EXIF:
        block = Image.Exif()
        block.load(exif)
        folders = [block, *(block.get_ifd(tag) for tag in TiffTags.TAGS_V2_GROUPS if tag in block)]
        sizes = [(len(value), number, tag) for number, folder in enumerate(folders) for tag, value in folder.items()
                 if isinstance(value, (bytes, str, tuple))]  # fmt: skip
        if not sizes:
            return b""
        _, number, tag = max(sizes)
        del folders[number][tag]
        exif = block.tobytes()
    return exif


def _write_png(file: io.BytesIO, layers: list[np.ndarray], exif: bytes, icc: bytes) -> None:
    """A PNG of 16 bits (ISO/IEC 15948), from layers (H, W, C) uint16 with 1 to 4 channels in all.

    Pillow writes such only in grey, pypng writes no EXIF block.
    """
    (height, width), depth = layers[0].shape[:2], sum(layer.shape[2] for layer in layers)
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[depth], 0, 0, 0))
    if icc:
        putchunk(file, b"iCCP", b"profile\0\0", zlib.compress(icc))
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    packer = zlib.compressobj()
    for rows in image_files.bands(height, width):
        data = np.concatenate([layer[rows] for layer in layers], 2).astype(">u2").view(np.uint8)
        lines = np.diff(data, axis=1, prepend=np.uint8(0)).reshape(len(data), -1)  # less the pixel to the left
        putchunk(file, b"IDAT", packer.compress(np.insert(lines, 0, 1, axis=1).tobytes()))  # filter 1 says so
    putchunk(file, b"IDAT", packer.flush())
    putchunk(file, b"IEND")


def _write_tiff(file: io.BytesIO, layers: list[np.ndarray], exif: bytes, icc: bytes) -> None:
    """A TIFF of 16 bits (TIFF 6.0), deflated, from layers (H, W, C) uint16 with 1, 3 or 4 channels in all.

    Pillow writes such only in grey; tifffile writes them, but not the folder of its own that most EXIF tags lie in.
    """
    (height, width), depth = layers[0].shape[:2], sum(layer.shape[2] for layer in layers)
    bands = image_files.bands(height, width)
    parts = (np.concatenate([layer[rows] for layer in layers], 2) for rows in bands)
    steps = (np.diff(part, axis=1, prepend=np.uint16(0)) for part in parts)  # predictor 2: less the pixel to the left
    strips = [zlib.compress(step.astype("<u2").tobytes()) for step in steps]
    lengths = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    block = Image.Exif()
    block.load(exif)
    for tag in block:
        tags[tag] = block.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else block[tag]
    tags.update({
        256: width, 257: height, 258: (16,) * depth, 259: 8, 262: 2 if depth > 2 else 1, 277: depth, 278: bands[0].stop,
        273: tuple(np.cumsum([0, *lengths[:-1]]).tolist()), 279: tuple(lengths), 284: 1, 317: 2,
    })  # fmt: skip
    if depth == 4:
        tags[338] = 2  # an alpha that the colours are not multiplied by
    if icc:
        tags[34675] = icc
    tags.save(file)
    file.write(b"".join(strips))
